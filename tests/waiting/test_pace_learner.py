"""What a worker's counters teach of its pace: soon, steadily, and unmoved by a process that was stopped."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

import pytest

from headrace.core.governing import Speeds
from headrace.core.instance import Done, Pace
from headrace.core.waiting import PaceLearner

TOLD = Pace(step_s=0.02, sequence_s=0.0005, prefill_token_s=0.0001)


@dataclass
class Machine:
    """A worker with a pace of its own, told of in heartbeats of 25 iterations."""

    pace: Pace
    noise: float = 0.0  # standard deviation of a heartbeat's seconds, as a share
    random: Random = field(default_factory=lambda: Random(1))
    done: Done = field(default_factory=Done)

    def beat(self, batch: int, prefill_tokens: int = 0, iterations: int = 25, stopped_s: float = 0.0) -> Done:
        pace, done = self.pace, self.done
        busy_s = iterations * (pace.step_s + pace.sequence_s * batch) + prefill_tokens * pace.prefill_token_s
        self.done = Done(
            done.busy_s + busy_s * max(0.1, self.random.gauss(1.0, self.noise)) + stopped_s,
            done.iterations + iterations,
            done.prefill_tokens + prefill_tokens,
            done.decode_tokens + iterations * batch,
        )
        return self.done

    def beats(self, count: int, *, batches: Iterable[int] = range(4, 65), prompts: int = 4_000) -> list[Done]:
        choices = list(batches)
        return [self.beat(self.random.choice(choices), self.random.randrange(prompts + 1)) for _ in range(count)]


def times(pace: Pace, factor: float) -> Pace:
    return Pace(pace.step_s * factor, pace.sequence_s * factor, pace.prefill_token_s * factor)


def taught(told: Pace | None, beats: Iterable[Done]) -> PaceLearner:
    learner = PaceLearner(told)
    for done in beats:
        learner.observe(done)
    return learner


def step_s(pace: Pace, batch: int, prefill_tokens: int = 0) -> float:
    return pace.step_s + pace.sequence_s * batch + pace.prefill_token_s * prefill_tokens


def test_before_anything_it_is_what_was_advertised() -> None:
    learner = PaceLearner(TOLD)
    assert learner.pace == TOLD
    assert learner.tokens_per_s(32) == pytest.approx(32 / 0.036)
    assert learner.tokens_per_s(32, speeds=Speeds(decode=0.5)) == pytest.approx(16 / 0.036)
    assert PaceLearner().tokens_per_s(32) > 0, "a guess where nothing is advertised"
    assert PaceLearner(Pace()).pace == PaceLearner().pace


@pytest.mark.parametrize(
    ("true", "beats", "within", "why"),
    [
        (TOLD, 50, 0.01, "as advertised"),
        (times(TOLD, 1.2), 50, 0.02, "a fifth slower all over"),
        (times(TOLD, 3.0), 60, 0.05, "three times slower all over"),
        (times(TOLD, 0.4), 60, 0.05, "faster"),
        (Pace(0.03, 0.0005, 0.0001), 120, 0.05, "an iteration alone is slower"),
        (Pace(0.02, 0.0015, 0.0001), 120, 0.08, "sequences cost three times as much"),
        (Pace(0.02, 0.0005, 0.0003), 120, 0.12, "prompts cost three times as much"),
        (Pace(0.03, 0.0, 0.0001), 120, 0.08, "sequences cost nothing: never less"),
    ],
)
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_it_learns_a_pace(true: Pace, beats: int, within: float, why: str, noise: float) -> None:
    """Of iterations at any batch that was seen, with prompts and without."""
    learnt = taught(TOLD, Machine(true, noise).beats(beats)).pace
    for batch, prompt in ((8, 0), (32, 0), (64, 0), (32, 100)):
        expected_s = step_s(true, batch, prompt)
        assert step_s(learnt, batch, prompt) == pytest.approx(expected_s, rel=within + noise), why
    assert min(learnt.step_s, learnt.sequence_s, learnt.prefill_token_s) >= 0


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_it_learns_from_nothing(scale: float) -> None:
    true = times(TOLD, scale)
    few = taught(None, Machine(true).beats(2)).pace
    assert step_s(few, 34) == pytest.approx(step_s(true, 34), rel=0.5)
    many = taught(Pace(), Machine(true).beats(60)).pace
    for batch in (8, 32, 64):
        assert step_s(many, batch) == pytest.approx(step_s(true, batch), rel=0.05)


def test_a_few_observations_change_little() -> None:
    one = taught(TOLD, Machine(times(TOLD, 1.2)).beats(1)).pace
    assert 1.02 < step_s(one, 32) / step_s(TOLD, 32) < 1.1


def test_what_a_steady_load_cannot_tell_apart_stays_in_proportion() -> None:
    """Always 32 sequences, no prompts: everything is twice as slow, for all that is known."""
    learnt = taught(TOLD, Machine(times(TOLD, 2.0)).beats(100, batches=(32,), prompts=0)).pace
    assert step_s(learnt, 32) == pytest.approx(2 * step_s(TOLD, 32), rel=0.02)
    assert step_s(learnt, 1) == pytest.approx(2 * step_s(TOLD, 1), rel=0.1)
    assert learnt.prefill_token_s == pytest.approx(2 * TOLD.prefill_token_s, rel=0.1)


@pytest.mark.parametrize("stopped_s", [1.0, 10.0, 1e6])
def test_a_stopped_process_changes_little(stopped_s: float) -> None:
    machine = Machine(TOLD)
    learner = taught(TOLD, machine.beats(40))
    learner.observe(machine.beat(32, stopped_s=stopped_s))
    assert step_s(learner.pace, 32) == pytest.approx(step_s(TOLD, 32), rel=0.04)
    for done in machine.beats(20):
        learner.observe(done)
    assert step_s(learner.pace, 32) == pytest.approx(step_s(TOLD, 32), rel=0.02)


@pytest.mark.parametrize("factor", [2.0, 5.0, 0.3])
def test_a_change_comes_through_in_ten_heartbeats(factor: float) -> None:
    machine = Machine(TOLD, 0.02)
    learner = taught(TOLD, machine.beats(100))
    machine.pace = times(TOLD, factor)
    for done in machine.beats(10):
        learner.observe(done)
    assert step_s(learner.pace, 32) == pytest.approx(factor * step_s(TOLD, 32), rel=0.12)


def test_a_known_slowdown_is_not_learnt() -> None:
    machine = Machine(times(TOLD, 2.0))
    learner = PaceLearner(TOLD)
    for done in machine.beats(30):
        assert learner.observe(done, Speeds(prefill=0.5, decode=0.5))
    assert step_s(learner.pace, 32) == pytest.approx(step_s(TOLD, 32), rel=0.001)


def test_a_cap_that_slows_down_one_stage_is_not_learnt_either() -> None:
    capped = Pace(TOLD.step_s / 0.9, TOLD.sequence_s / 0.9, TOLD.prefill_token_s / 0.4)
    learner = PaceLearner(TOLD)
    for done in Machine(capped).beats(30):
        learner.observe(done, Speeds(prefill=0.4, decode=0.9))
    assert learner.pace.prefill_token_s == pytest.approx(TOLD.prefill_token_s, rel=0.001)
    assert learner.pace.step_s == pytest.approx(TOLD.step_s, rel=0.001)


def test_counters_that_begin_anew() -> None:
    learner = taught(TOLD, Machine(times(TOLD, 1.5)).beats(60))
    before = learner.pace
    for done in Machine(times(TOLD, 1.5)).beats(20):
        learner.observe(done)
    assert step_s(learner.pace, 32) == pytest.approx(step_s(before, 32), rel=0.02)


def test_hardly_any_iterations_wait_for_more() -> None:
    machine, learner = Machine(times(TOLD, 2.0)), PaceLearner(TOLD)
    for _ in range(3):
        learner.observe(machine.beat(8, iterations=1))
        assert learner.pace == TOLD
    learner.observe(machine.beat(8, iterations=1))
    assert learner.pace != TOLD, "four together are an observation"
    learner.observe(machine.done)
    assert learner.pace is not None, "nothing was done since"


@pytest.mark.parametrize(
    "broken",
    [
        Done(float("inf"), 100, 0, 100),
        Done(float("nan"), 100, 0, 100),
        Done(0.0, 100, 0, 100),
        Done(-5.0, 100, 0, 100),
        Done(1.0, -100, 0, 0),
        Done(1e300, 1_000_000, 0, 0),
        Done(1.0, 10, -50_000_000, -50_000_000),
    ],
)
def test_broken_counters_stay_within_bounds(broken: Done) -> None:
    learner = PaceLearner(TOLD)
    for _ in range(20):
        learner.observe(broken)
        learner.observe(Done())
    pace = learner.pace
    assert 0 <= pace.step_s <= 50 * TOLD.step_s
    assert 0 <= pace.sequence_s <= 50 * TOLD.sequence_s
    assert 0 <= pace.prefill_token_s <= 50 * TOLD.prefill_token_s
