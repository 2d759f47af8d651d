"""From answers to observations: seconds of known iterations, of hand-overs, of pictures, and of the mesh's own ways.

Medians over the rounds: a round that something disturbed does not count by how much it was disturbed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median, mode

from headrace.calibration.asking import Answer
from headrace.calibration.encoder import Batch, Encoded
from headrace.calibration.engine import Observed
from headrace.calibration.probes import InARow, Measured, Pictured, Steady
from headrace.calibration.work import added, chunk_work, prefill_works
from headrace.client.types import Stage
from headrace.core.cost import StepWork

STEPS_MIN = 6  # of a window in which nothing but decoding happens
TOGETHER_S = 2e-4  # prefills that end so near each other ended in one iteration


def prefills(measured: Measured, chunk_tokens: int) -> list[Observed]:
    """Lone prompts: the command's way, then their iterations."""
    out = list[Observed]()
    for probe, rounds in measured.of(Steady):
        assert isinstance(probe, Steady)
        if probe.count == 1:
            answers = [answer for answers in rounds for answer in answers]
            took_s = [answer.prefill.end_s - answer.dispatched_s for answer in answers]
            works = prefill_works(_typical(answers), _cached(answers), chunk_tokens)
            out.append(Observed(f"prefill {probe.tokens}", median(took_s), works, way=True))
    return out


def rows_of_prefills(measured: Measured, chunk_tokens: int) -> list[Observed]:
    """Prompts that waited for those before them: their iterations alone.

    Only where the ones before ended in another iteration, and where nothing is cut into chunks.
    """
    out = list[Observed]()
    for probe, rounds in measured.of(InARow):
        assert isinstance(probe, InARow)
        by_work: dict[StepWork, list[float]] = {}
        for answers in rounds:
            for work, took_s in _following(answers, chunk_tokens):
                by_work.setdefault(work, []).append(took_s)
        if by_work:  # the way that most rounds went
            work, took = max(by_work.items(), key=lambda item: len(item[1]))
            out.append(Observed(f"row {probe.tokens}", median(took), (work,)))
    return out


def _following(answers: Sequence[Answer], chunk_tokens: int) -> Iterable[tuple[StepWork, float]]:
    by_worker: dict[str, list[Answer]] = {}
    for answer in answers:
        by_worker.setdefault(answer.prefill.worker, []).append(answer)
    for alike in by_worker.values():
        iterations = list[list[Answer]]()
        for answer in sorted(alike, key=lambda each: each.prefill.end_s):
            if iterations and answer.prefill.end_s - iterations[-1][-1].prefill.end_s < TOGETHER_S:
                iterations[-1].append(answer)
            else:
                iterations.append([answer])
        for before, now in pairwise(iterations):
            work = added([chunk_work(each.cached_tokens, each.prompt_tokens) for each in now])
            began_s = before[-1].prefill.end_s
            waited = all(each.dispatched_s < began_s - TOGETHER_S for each in now)
            if waited and work.prefill_tokens <= chunk_tokens:
                yield work, now[-1].prefill.end_s - began_s


def decodes(measured: Measured) -> list[Observed]:
    out = list[Observed]()
    for probe, rounds in measured.of(Steady):
        assert isinstance(probe, Steady)
        by_size: dict[int, list[tuple[float, float]]] = {}
        for answers in rounds:
            for sequences, context, period_s in _steady(answers):
                by_size.setdefault(sequences, []).append((context, period_s))
        for sequences, seen in by_size.items():
            context = round(median(each for each, _ in seen))
            work = StepWork(decode_sequences=sequences, decode_context_tokens=context)
            period_s = median(each for _, each in seen)
            out.append(Observed(f"decode {sequences} x {probe.tokens} of {probe.count}", period_s, (work,)))
    return out


def _steady(answers: Sequence[Answer]) -> Iterable[tuple[int, float, float]]:
    """(sequences, context tokens read, seconds) of an iteration while all of a worker's sequences decode."""
    by_worker: dict[str, list[Answer]] = {}
    for answer in answers:
        by_worker.setdefault(answer.decoder, []).append(answer)
    for batch in by_worker.values():
        begin_s = max(answer.token_s[1] for answer in batch)
        end_s = min(answer.token_s[-1] for answer in batch)
        context, periods = 0.0, list[float]()
        for answer in batch:
            inside = [at for at, come_s in enumerate(answer.token_s) if at >= 1 and begin_s <= come_s <= end_s]
            if len(inside) <= STEPS_MIN:
                break
            first, last = inside[0], inside[-1]
            if answer.token_s[last] <= answer.token_s[first]:  # all of them in one message
                break
            periods.append((answer.token_s[last] - answer.token_s[first]) / (last - first))
            context += answer.prompt_tokens + (first + 1 + last) / 2
        else:
            yield len(batch), context, median(periods)


def pictures(measured: Measured) -> list[Encoded]:
    """Each probe's pictures in the batches that most of its rounds had, and the middle of those rounds' seconds."""
    out = list[Encoded]()
    for probe, rounds in measured.of(Pictured):
        assert isinstance(probe, Pictured)
        seen, tokens = list[list[Batch]](), 0
        for (answer,) in rounds:
            if batches := _batches(answer):
                seen.append(batches)
                tokens = answer.media_tokens // probe.count
        if seen:
            usual = mode(map(_parts, seen))
            out.append(Encoded(str(probe), probe.width * probe.height, tokens, _middle(seen, usual)))
    return out


def _parts(batches: Sequence[Batch]) -> tuple[int, ...]:
    return tuple(batch.parts for batch in batches)


def _middle(seen: Sequence[Sequence[Batch]], parts: tuple[int, ...]) -> tuple[Batch, ...]:
    alike = zip(*[batches for batches in seen if _parts(batches) == parts], strict=True)
    return tuple([Batch(of[0].parts, median(b.read_s for b in of), median(b.encode_s for b in of)) for of in alike])


def _batches(answer: Answer) -> list[Batch]:
    """Of one encoder; none if pictures were spread over several, or told of by a heartbeat, which has no times.

    An encoder does one thing after the other, so that pictures whose towers' times overlap were in it together.
    """
    reading, towers = answer.all("preprocess"), sorted(answer.all("encode"), key=lambda span: span.start_s)
    if len({span.worker for span in reading}) != 1 or len(towers) != len(reading):
        return []
    together = list[list[Stage]]()
    for span in towers:
        if together and span.start_s < min(each.end_s for each in together[-1]):
            together[-1].append(span)
        else:
            together.append([span])
    taken_s = {span.part: span.start_s for span in reading}
    found = list[Batch]()
    for batch in together:
        read_s, end_s = max(span.start_s for span in batch), max(span.end_s for span in batch)
        found.append(Batch(len(batch), read_s - min(taken_s[span.part] for span in batch), end_s - read_s))
    return found


@dataclass(frozen=True, slots=True)
class Handed:
    """KV caches of one length on their way from prefill to the decoding engine."""

    tokens: int
    seconds: float
    prefill_s: float  # the iterations that made it, in which it may have left


def handovers(measured: Measured) -> list[Handed]:
    out = list[Handed]()
    for probe, rounds in measured.of(Steady):
        assert isinstance(probe, Steady)
        answers = [answer for answers in rounds for answer in answers if answer.handed_over is not None]
        if probe.count == 1 and answers:
            took = [span.end_s - span.start_s for each in answers if (span := each.handed_over) is not None]
            prefill_s = median(answer.prefill.end_s - answer.dispatched_s for answer in answers)
            out.append(Handed(_typical(answers), median(took), prefill_s))
    return out


def _typical(answers: Sequence[Answer]) -> int:
    return round(median(answer.prompt_tokens for answer in answers))


def _cached(answers: Sequence[Answer]) -> int:
    return round(median(answer.cached_tokens for answer in answers))
