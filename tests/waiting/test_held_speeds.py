"""The mean speed over a measurement, and that a cap whose factor is known never looks like a slow worker."""

import pytest

from headrace.core.governing import FULL, Speeds
from headrace.core.instance import Done, Pace
from headrace.core.waiting.held import HeldSpeeds
from headrace.core.waiting.pace import PaceLearner

HALF = Speeds(0.5, 0.5, 0.5)


def test_the_mean_is_over_time_since_it_began() -> None:
    held = HeldSpeeds(10.0)
    assert held.mean(11.0) == FULL
    held.change(HALF, 11.0)
    assert held.mean(12.0).decode == pytest.approx(0.75)
    held.begin(12.0)
    assert held.mean(12.0) == held.mean(13.0) == HALF
    held.change(FULL, 15.0)
    assert held.mean(18.0).prefill == pytest.approx((3 * 0.5 + 3 * 1.0) / 6)


def test_a_clock_that_runs_back_changes_nothing_that_is_past() -> None:
    held = HeldSpeeds(10.0)
    held.change(HALF, 12.0)
    held.change(FULL, 11.0)
    assert 0.5 <= held.mean(11.5).decode <= 1.0
    assert held.mean(9.0) == FULL


@pytest.mark.parametrize("each_s", [0.5, 0.7])
def test_a_cap_that_comes_and_goes_leaves_the_pace_as_it_is(each_s: float) -> None:
    """Beats every half second; the cap changes between them, so that an interval holds two speeds."""
    told, now_s, work_s = Pace(0.02, 0.0005, 0.0001), 0.0, 0.0
    learner, held, speeds = PaceLearner(told), HeldSpeeds(0.0), FULL
    batch, at_s = 10, each_s / 2
    for beat in range(1, 121):
        end_s = beat * 0.5
        while at_s < end_s:
            work_s, now_s = work_s + (at_s - now_s) * speeds.decode, at_s
            speeds = HALF if speeds == FULL else FULL
            held.change(speeds, at_s)
            at_s += each_s
        work_s, now_s = work_s + (end_s - now_s) * speeds.decode, end_s
        steps = int(work_s / 0.025)
        if learner.observe(Done(now_s, steps, 0, steps * batch), held.mean(now_s)):
            held.begin(now_s)
    pace = learner.pace
    assert pace.step_s + batch * pace.sequence_s == pytest.approx(0.025, rel=0.05)
