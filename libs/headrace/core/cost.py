"""What computing costs, as a function of what is computed: tokens and tiles -> seconds, joules, bytes.

Pure: the profile engine sleeps for it, the simulator advances its clock by it. The numbers come from headrace.profiles.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass, field

from headrace.core.instance import Pace


@dataclass(frozen=True, slots=True)
class StepWork:
    """What one iteration of an LLM computes."""

    prefill_tokens: int = 0
    prefill_pairs: int = 0  # sum over prefilled tokens of the positions they attend to: the quadratic part
    decode_sequences: int = 0
    decode_context_tokens: int = 0  # KV positions read by the decoding sequences
    # Cross-attention models alone: media rows stand beside the sequence (Mllama).
    cross_tokens: int = 0  # media rows whose cross KV is made in this iteration
    cross_pairs: int = 0  # sum over prefilled tokens of the media rows they attend to
    decode_cross_tokens: int = 0  # cross KV positions read by the decoding sequences


@dataclass(frozen=True, slots=True)
class Curve:
    """A piecewise linear function: constant before its first point, its last slope goes on behind its last."""

    xs: tuple[float, ...] = (0.0,)
    ys: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        assert len(self.xs) == len(self.ys) > 0, "a curve has as many x as y"
        assert all(a < b for a, b in zip(self.xs, self.xs[1:], strict=False)), "x must grow"
        assert all(a <= b for a, b in zip(self.ys, self.ys[1:], strict=False)), "more work never takes less time"
        assert self.ys[0] >= 0

    def __call__(self, x: float) -> float:
        xs, ys = self.xs, self.ys
        if x <= xs[0] or len(xs) == 1:
            return ys[0]
        at = min(bisect_right(xs, x), len(xs) - 1)
        slope = (ys[at] - ys[at - 1]) / (xs[at] - xs[at - 1])
        return ys[at - 1] + slope * (x - xs[at - 1])


@dataclass(frozen=True, slots=True)
class StepCost:
    """Seconds of an iteration: what every token passes through, then attention, which depends on what it looks at.

    `tokens_s` is everything but attention by tokens in the iteration (prefilled and decoding alike): its floor is the
    weights' trip through the memory. Linear in the decoding sequences' context, so that an unchanged batch can be
    advanced by many iterations in closed form.
    """

    tokens_s: Curve = field(default_factory=Curve)
    prefill_pair_s: float = 0.0
    decode_sequence_s: float = 0.0  # beyond its token: sampling, scheduling
    decode_context_token_s: float = 0.0
    cross_token_s: float = 0.0
    cross_pair_s: float = 0.0
    decode_cross_token_s: float = 0.0

    def __post_init__(self) -> None:
        assert min(self.prefill_pair_s, self.decode_sequence_s, self.decode_context_token_s) >= 0
        assert min(self.cross_token_s, self.cross_pair_s, self.decode_cross_token_s) >= 0

    def step_s(self, work: StepWork) -> float:
        """Seconds of one iteration; one without work costs nothing."""
        tokens = work.prefill_tokens + work.decode_sequences
        if not tokens:
            return 0.0
        return (
            self.tokens_s(tokens)
            + work.prefill_pairs * self.prefill_pair_s
            + work.decode_sequences * self.decode_sequence_s
            + work.decode_context_tokens * self.decode_context_token_s
            + work.cross_tokens * self.cross_token_s
            + work.cross_pairs * self.cross_pair_s
            + work.decode_cross_tokens * self.decode_cross_token_s
        )

    def prefill_s(self, work: StepWork, step_s: float) -> float:
        """What of an iteration of step_s is its prefill's: by how much it takes longer with it. The rest decodes."""
        if not work.decode_sequences:
            return step_s
        if not work.prefill_tokens:
            return 0.0
        alone = StepWork(
            decode_sequences=work.decode_sequences,
            decode_context_tokens=work.decode_context_tokens,
            decode_cross_tokens=work.decode_cross_tokens,
        )
        return max(0.0, step_s - self.step_s(alone))

    def stretch_s(self, first: StepWork, steps: int) -> float:
        """Seconds of `steps` iterations that only decode: each sequence's context grows by one token each time."""
        assert not first.prefill_tokens, "a stretch only decodes"
        growth_s = first.decode_sequences * self.decode_context_token_s
        return steps * self.step_s(first) + growth_s * (steps * (steps - 1) / 2)

    def steps_begun(self, first: StepWork, elapsed_s: float) -> int:
        """How many iterations of such a stretch have begun `elapsed_s` after its start: at least one."""
        step_s = self.step_s(first)
        assert step_s > 0, "iterations that take no time cannot be counted"
        half_s = first.decode_sequences * self.decode_context_token_s / 2
        if not half_s:
            return max(1, math.ceil(elapsed_s / step_s))
        linear_s = step_s - half_s  # steps * linear_s + steps**2 * half_s = elapsed_s
        root_s = math.sqrt(linear_s * linear_s + 4 * half_s * max(elapsed_s, 0.0))
        steps = max(1, math.ceil((root_s - linear_s) / (2 * half_s)))
        while steps > 1 and self.stretch_s(first, steps - 1) >= elapsed_s:  # rounding
            steps -= 1
        while self.stretch_s(first, steps) < elapsed_s:
            steps += 1
        return steps


def pace_of(step: StepCost, slots: int, context_tokens: int) -> Pace:
    """The line that an estimator reckons with: exact for one sequence and for `slots`, each `context_tokens` long.

    A prefilled token costs what it adds to a full batch whose iteration takes a whole prompt of that length. All zeros:
    nothing costs anything.
    """
    assert slots > 0
    assert context_tokens > 0

    def decode_s(sequences: int) -> float:
        return step.step_s(StepWork(decode_sequences=sequences, decode_context_tokens=sequences * context_tokens))

    alone_s, full_s = decode_s(1), decode_s(slots)
    # Where the batch costs more than its members alone, the line would begin below zero: it goes through zero then.
    growth_s = (full_s - alone_s) / (slots - 1) if slots > 1 else _sequence_s(step, context_tokens)
    sequence_s = min(growth_s, full_s / slots)
    prompt = StepWork(context_tokens, context_tokens * (context_tokens + 1) // 2, slots, slots * context_tokens)
    return Pace(
        step_s=max(0.0, full_s - slots * sequence_s),
        sequence_s=sequence_s,
        prefill_token_s=(step.step_s(prompt) - full_s) / context_tokens,
    )


def _sequence_s(step: StepCost, context_tokens: int) -> float:
    """What a sequence costs beside the iteration that it is the only one of."""
    return step.decode_sequence_s + context_tokens * step.decode_context_token_s


@dataclass(frozen=True, slots=True)
class EncodeCost:
    """Seconds of a batch of media parts: reading and cutting on the CPU, then the tower on the GPU."""

    tiles_s: Curve = field(default_factory=Curve)  # the tower, by tiles in the batch
    preprocess_part_s: float = 0.0
    preprocess_megapixel_s: float = 0.0

    def preprocess_s(self, pixels: int) -> float:
        return self.preprocess_part_s + self.preprocess_megapixel_s * pixels / 1e6


@dataclass(frozen=True, slots=True)
class Power:
    """Watts that one GPU draws, by what it does."""

    idle_w: float = 0.0  # no process has a context on it
    context_w: float = 0.0  # an instance is loaded and computes nothing
    prefill_w: float = 0.0
    decode_w: float = 0.0
    encode_w: float = 0.0


@dataclass(frozen=True, slots=True)
class Link:
    """A way between two workers."""

    latency_s: float = 0.0
    bytes_per_s: float = math.inf

    def transfer_s(self, size_bytes: float) -> float:
        return self.latency_s + size_bytes / self.bytes_per_s
