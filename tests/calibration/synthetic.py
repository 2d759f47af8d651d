"""Answers as a mesh of known costs would give them: the clockwork that a calibration must find again."""

from dataclasses import dataclass, field
from random import Random

from headrace.calibration.asking import Answer
from headrace.calibration.probes import InARow, Measured, Pictured, Plan, Steady
from headrace.calibration.shape import Limits, PoolShape, Shape
from headrace.calibration.work import prefill_works
from headrace.client.types import Stage
from headrace.core.cost import Curve, EncodeCost, StepCost, StepWork
from headrace.core.stages.encoder_batch import batch_of

CHUNK = 8192
APART = Shape(
    "toy",
    ("image",),
    (
        PoolShape("encode", ("encode",), 1, 8, 0),
        PoolShape("prefill", ("prefill",), 1, 64, 4096),
        PoolShape("decode", ("decode",), 1, 64, 4096),
    ),
    Limits(8192, 16, CHUNK, 0, 16),
)
PART_S = 0.0015
PICTURES = EncodeCost(Curve((1.0, 2.0, 4.0), (0.02, 0.03, 0.05)), 0.004, 0.01)


@dataclass
class Clockwork:
    """Each answer on a clock of its own: probes never overlap."""

    step: StepCost
    admit_s: float = 0.002
    queue_s: float = 0.001
    deliver_s: float = 0.0015
    handed_s: float = 0.003
    noise: float = 0.0  # of every duration, relative
    rng: Random = field(default_factory=lambda: Random(7))
    now_s: float = 1000.0

    def _took(self, seconds: float) -> float:
        return seconds * (1 + self.noise * self.rng.uniform(-1, 1))

    def measured(self, plan: Plan, shape: Shape = APART) -> Measured:
        out = Measured()
        for probe in plan.probes(shape, 20):
            for _ in range(plan.rounds):
                self.now_s += 100.0
                out.answers.setdefault(probe, []).append(self._answers(probe))
        return out

    def _answers(self, probe: Steady | InARow | Pictured) -> list[Answer]:
        if isinstance(probe, Pictured):
            return [self._pictured(probe)]
        return self._in_a_row(probe) if isinstance(probe, InARow) else self._steady(probe)

    def _in_a_row(self, probe: InARow) -> list[Answer]:
        """The first alone, the others together in the next iteration."""
        dispatched_s = self.now_s + self.admit_s
        work = prefill_works(probe.tokens, 0, CHUNK)[0]
        first_s = dispatched_s + self.queue_s + self._took(self.step.step_s(work))
        rest = StepWork(work.prefill_tokens * (probe.count - 1), work.prefill_pairs * (probe.count - 1))
        rest_s = first_s + self._took(self.step.step_s(rest))
        ends = [first_s, *[rest_s] * (probe.count - 1)]
        return [self._answer(probe.tokens, dispatched_s, end_s, [end_s]) for end_s in ends]

    def _steady(self, probe: Steady) -> list[Answer]:
        """All are prefilled one after the other; then they decode together."""
        dispatched_s, answers_s = self.now_s + self.admit_s, list[float]()
        at_s = dispatched_s + self.queue_s
        for _ in range(probe.count):
            at_s += self._took(sum(self.step.step_s(work) for work in prefill_works(probe.tokens, 0, CHUNK)))
            answers_s.append(at_s)
        joined_s = at_s + self.handed_s
        token_s = list[float]()
        for index in range(1, 24):
            context = probe.count * (probe.tokens + index)
            at_s = (token_s[-1] if token_s else joined_s) + self._took(
                self.step.step_s(StepWork(decode_sequences=probe.count, decode_context_tokens=context))
            )
            token_s.append(at_s)
        return [self._answer(probe.tokens, dispatched_s, end_s, [end_s, *token_s], joined_s) for end_s in answers_s]

    def _answer(
        self, tokens: int, dispatched_s: float, prefilled_s: float, token_s: list[float], joined_s: float = 0.0
    ) -> Answer:
        spans = [
            Stage("admit", self.now_s, dispatched_s, "gateway-0"),
            Stage("queue", self.now_s, dispatched_s, "qm-0"),
            Stage("prefill", dispatched_s, prefilled_s, "prefill-0"),
        ]
        if joined_s:
            spans.append(Stage("transfer", prefilled_s, prefilled_s + self.handed_s, "decode-0"))
            spans.append(Stage("decode", joined_s, token_s[-1], "decode-0"))
        come_s = tuple(each + self.deliver_s for each in token_s)
        return Answer(self.now_s, come_s, come_s[-1], tuple(spans), tokens)

    def _pictured(self, probe: Pictured) -> Answer:
        pixels, began_s = probe.width * probe.height, self.now_s + self.admit_s + self.queue_s + 0.001 * probe.count
        parts, encoded_s, waiting = list[Stage](), began_s - PART_S, probe.count
        while waiting:
            size = batch_of(waiting, 8)
            taken_s = encoded_s + PART_S
            read_s = taken_s + size * PICTURES.preprocess_s(pixels)
            encoded_s, waiting = read_s + PICTURES.tiles_s(size), waiting - size
            for part in range(waiting, waiting + size):
                parts.append(Stage("preprocess", taken_s, read_s, "encode-0", part))
                parts.append(Stage("encode", read_s, encoded_s, "encode-0", part))
        ready_s = encoded_s + PART_S + 0.0005
        prefilled_s = ready_s + self.queue_s + self.step.step_s(StepWork(40, 820))
        spans = (
            Stage("admit", self.now_s, began_s, "gateway-0"),
            *parts,
            Stage("media", self.now_s + self.admit_s, ready_s, "qm-0"),
            Stage("queue", ready_s, ready_s, "qm-0"),
            Stage("prefill", ready_s, prefilled_s, "prefill-0"),
        )
        come_s = prefilled_s + self.deliver_s
        return Answer(self.now_s, (come_s,), come_s, spans, 40, 0, 6 * probe.count)
