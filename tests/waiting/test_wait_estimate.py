"""Expected waits against slots that serve a line, and the cases that can be worked out by hand."""

import math
from collections.abc import Callable
from random import Random
from statistics import fmean

import pytest

from headrace.core.instance import Pace
from headrace.core.lengths import Prediction
from headrace.core.waiting import NOTHING, Instance, Wait, Work, completion, decode, first_token, queue_wait
from tests.waiting.slots import ANSWERS, drawn, fresh, last_steps, running_work, start_steps, steady, work

STEP = Instance(slots=16, pace=Pace(step_s=1.0))  # a second an iteration: waits are iterations
CASES = 60


def waits(
    name: str, slots: int, waiting: int, begun: Callable[[Prediction, int, Random], list[tuple[int, int]]]
) -> tuple[list[float], list[Wait]]:
    """True and expected, of as many drawn cases."""
    answers, random = ANSWERS[name], Random(f"{name} {slots} {waiting} {begun.__name__}")
    instance = Instance(slots, Pace(step_s=1.0))
    true: list[float] = []
    said: list[Wait] = []
    for _ in range(CASES):
        running = begun(answers, slots, random)
        line = [drawn(answers, random) for _ in range(waiting)]
        true.append(start_steps(slots, running, line))
        said.append(queue_wait(instance, running_work(answers, running), work(answers, waiting)))
    return true, said


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("begun", [steady, fresh])
@pytest.mark.parametrize(("slots", "waiting"), [(4, 12), (16, 48), (16, 160), (64, 192)])
def test_long_lines(
    name: str, slots: int, waiting: int, begun: Callable[[Prediction, int, Random], list[tuple[int, int]]]
) -> None:
    """From three times the slots on: the mean within 10 %, and 1.28 deviations above it hold nine times in ten."""
    true, said = waits(name, slots, waiting, begun)
    assert fmean(wait.mean_s for wait in said) == pytest.approx(fmean(true), rel=0.1)
    held = fmean(w <= wait.bound(1.28) for w, wait in zip(true, said, strict=True))
    assert held >= 0.8
    assert fmean(w <= wait.bound() for w, wait in zip(true, said, strict=True)) >= 0.95


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("begun", [steady, fresh])
@pytest.mark.parametrize(("slots", "waiting"), [(4, 0), (4, 2), (16, 0), (16, 1), (16, 8), (16, 16), (64, 1), (64, 32)])
def test_short_lines(
    name: str, slots: int, waiting: int, begun: Callable[[Prediction, int, Random], list[tuple[int, int]]]
) -> None:
    """Up to as many as there are slots: off by less than a quarter of a usual answer, on average."""
    true, said = waits(name, slots, waiting, begun)
    answer = ANSWERS[name].mean
    assert abs(fmean(wait.mean_s for wait in said) - fmean(true)) < 0.25 * answer
    assert fmean(w <= wait.bound() for w, wait in zip(true, said, strict=True)) >= 0.9


def test_shorter_than_the_papers() -> None:
    """Equation 2 knows nothing of those that run, nor of what is unfinished at the start."""
    true, said = waits("chat", 16, 1, fresh)
    ours = fmean(abs(wait.mean_s - w) for w, wait in zip(true, said, strict=True))
    assert ours < 20.0
    true, said = waits("narrow", 16, 16, fresh)
    paper = [ANSWERS["narrow"].mean] * CASES
    off = [fmean(abs(a - b) for a, b in zip(true, guess, strict=True)) for guess in ([w.mean_s for w in said], paper)]
    assert off[0] < 0.6 * off[1]


@pytest.mark.parametrize(
    ("running", "ahead", "steps", "within", "why"),
    [
        (Work.of(100.0, 0.0, 0.0).times(16), NOTHING, 100.0, 10.0, "all end together, in 100 iterations"),
        (Work.of(100.0, 0.0, 0.0).times(16), Work.of(100.0, 0.0, 0.0).times(8), 100.0, 10.0, "half a batch behind"),
        (NOTHING, Work.of(100.0, 0.0, 0.0).times(16), 100.0, 10.0, "the line fills the batch and ends together"),
        (Work.of(10.0, 0.0, 0.0).times(8), Work.of(10.0, 0.0, 0.0).times(8), 10.0, 1.0, "half run, half start"),
        (Work.of(50.0, 2500.0, 0.0).times(16), NOTHING, 50.0 / 16, 1.0, "the first of 16 exponential ones"),
        (
            Work.of(50.0, 2500.0, 0.0).times(16),
            Work.of(50.0, 2500.0, 0.0).times(160),
            161 * 50.0 / 16,
            10.0,
            "exponential ones end 16 at a time, without memory",
        ),
    ],
)
def test_worked_out(running: Work, ahead: Work, steps: float, within: float, why: str) -> None:
    assert queue_wait(STEP, running, ahead).mean_s == pytest.approx(steps, abs=within), why


FULL = Work.of(100.0, 2_000.0, 0.0).times(16)
LINE = Work.of(100.0, 2_000.0, 50.0).times(64)


def test_nobody_waits_for_a_free_slot() -> None:
    beside = Work.of(100.0, 0.0, 0.0).times(15)
    assert queue_wait(STEP, beside, NOTHING) == Wait(0.0)
    assert queue_wait(STEP, beside, Work.of(1.0, 0.0, 0.0)).mean_s > 0


def test_until_the_first_token_there_is_prefill() -> None:
    pace = Pace(step_s=0.02, sequence_s=0.001, prefill_token_s=1e-4)
    instance = Instance(16, pace)
    alone = first_token(instance, NOTHING, NOTHING, 1_000).mean_s
    assert alone == pytest.approx(0.02 + 0.1), "an iteration, and its prompt"
    pending = first_token(instance, Work.of(10.0, 0.0, 5_000), NOTHING, 1_000).mean_s
    assert pending == pytest.approx(0.6 + 0.0315), "who came just before is prefilled first, half an iteration goes on"


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (Instance(8, Pace(1.0)), "half the slots"),
        (Instance(16, Pace(2.0)), "slower iterations"),
        (Instance(16, Pace(1.0, 0.1)), "sequences that slow one another down"),
        (Instance(16, Pace(1.0, 0.0, 0.01)), "prompts that take time"),
        (Instance(16, Pace(1.0), gap_s=0.5), "slots that stand empty for an iteration between two"),
    ],
)
def test_what_makes_a_wait_longer(more: Instance, why: str) -> None:
    assert queue_wait(more, FULL, LINE).mean_s > 1.005 * queue_wait(STEP, FULL, LINE).mean_s, why


def test_a_larger_request_waits_for_more_to_end() -> None:
    waits_s = [queue_wait(STEP, FULL, NOTHING, slots).mean_s for slots in (1.0, 2.0, 8.0, 15.0)]
    assert waits_s == sorted(waits_s)
    assert waits_s[-1] > 1.5 * waits_s[0]


def test_prefill_elsewhere_does_not_slow_decoding() -> None:
    pace = Pace(step_s=0.02, prefill_token_s=1e-3)
    together = queue_wait(Instance(16, pace), FULL, LINE).mean_s
    apart = queue_wait(Instance(16, pace, apart=True), FULL, LINE).mean_s
    assert together - apart == pytest.approx(64 * 50 * 1e-3)
    mega = Work.of(100.0, 2_000.0, 50_000.0).times(64)
    assert queue_wait(Instance(16, pace, apart=True), FULL, mega).mean_s == pytest.approx(64 * 50.0), "prefill's line"


def test_two_engines_are_twice_as_fast() -> None:
    one = queue_wait(Instance(16, Pace(0.02, 0.001, 1e-4)), FULL, LINE)
    two = queue_wait(Instance(32, Pace(0.02, 0.001, 1e-4), engines=2), FULL.times(2), LINE.times(2))
    assert two.mean_s == pytest.approx(one.mean_s, rel=0.02)


@pytest.mark.parametrize("own", [1, 8, 40])
@pytest.mark.parametrize("ahead", [0, 48])
def test_completion_of_a_group(own: int, ahead: int) -> None:
    """Equation 5: within a third of an answer and 15 %."""
    answers, random = ANSWERS["chat"], Random(own + ahead)
    true, said = [], []
    for _ in range(CASES):
        running = steady(answers, 16, random)
        lines = [[drawn(answers, random) for _ in range(count)] for count in (ahead, own)]
        true.append(last_steps(16, running, *lines))
        said.append(completion(STEP, running_work(answers, running), work(answers, ahead), work(answers, own)).mean_s)
    assert fmean(said) == pytest.approx(fmean(true), rel=0.15, abs=answers.mean / 3)


def test_decoding_is_slowed_by_those_beside() -> None:
    """Equation 4: 99 further tokens, each an iteration of 20 ms alone, of 36 ms in a full batch."""
    instance, one = Instance(16, Pace(0.02, 0.001)), Work.of(100.0, 0.0, 0.0)
    assert decode(instance, NOTHING, NOTHING, one).mean_s == pytest.approx(99 * 0.021)
    assert decode(instance, FULL, LINE, one).mean_s == pytest.approx(99 * 0.036)


def test_nothing_known_is_no_wait_and_no_error() -> None:
    nowhere = Instance(0.0, Pace())
    assert queue_wait(nowhere, NOTHING, LINE).mean_s == 0.0
    assert first_token(Instance(1.0, Pace()), Work.of(0.0, 0.0, 0.0), LINE, 10).mean_s == 0.0
    assert math.isinf(Instance(16, Pace()).tokens_per_s)
    assert completion(STEP, NOTHING, NOTHING, NOTHING) == Wait(0.0)


def test_sums_come_and_go() -> None:
    one, other = Work.of(100.0, 50.0, 10.0), Work.of(7.0, 0.0, 3.0, slots=40.0)
    assert (one + other) - other == one
    assert (one + other) - one - other == NOTHING
    assert other.count == 40.0, "a request of forty usual ones' room"
    assert other.output_mean == 280.0
    assert one.times(3.0) == one + one + one
