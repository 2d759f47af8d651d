"""Waits of those whom others pass: by hand, as a fixed point, and against a queue that is served by due time."""

import math
from collections import deque
from random import Random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.waiting import NOTHING, Wait, Work
from headrace.core.waiting.overtaking import MEMORY_S, STREAMS_MAX, WATCHED_S, Arrivals, Stream, overtaken


@pytest.mark.parametrize(
    ("left_s", "streams", "mean_s", "why"),
    [
        (100.0, [], 10.0, "nobody comes"),
        (100.0, [(20.0, 0.5)], 20.0, "half of the time goes to others as long as it waits"),
        (25.0, [(20.0, 0.5)], 12.5, "those who come later than in 5 s are due after it"),
        (100.0, [(20.0, 0.25), (60.0, 0.25)], 20.0, "two kinds"),
        (62.0, [(20.0, 0.25), (60.0, 0.25)], 14.0, "one passes to the end, the other for 2 s: (10 + 0.5) / 0.75"),
        (100.0, [(20.0, 1.5)], 130.0, "more than can be served: 80 s of them"),
        (100.0, [(100.0, 0.9), (3600.0, 0.9)], 10.0, "its own kind, and those who are more patient, come after it"),
        (-5.0, [(20.0, 0.5)], 10.0, "late already"),
    ],
)
def test_by_hand(left_s: float, streams: list[tuple[float, float]], mean_s: float, why: str) -> None:
    said = overtaken(Wait(10.0), left_s, [Stream(target_s, share, 0.0) for target_s, share in streams])
    assert said.mean_s == pytest.approx(mean_s), why


def test_who_need_not_wait_is_passed_by_nobody() -> None:
    assert overtaken(Wait(0.0), 100.0, [Stream(20.0, 0.9, 1.0)]) == Wait(0.0)


@given(
    wait_s=st.floats(0.01, 1e4),
    left_s=st.floats(-10.0, 1e5),
    streams=st.lists(st.tuples(st.floats(0.05, 1e5), st.floats(0.0, 3.0)), max_size=6),
)
def test_it_waits_for_those_who_came_first_and_for_all_who_pass_meanwhile(
    wait_s: float, left_s: float, streams: list[tuple[float, float]]
) -> None:
    said = overtaken(Wait(wait_s, 1.0), left_s, [Stream(target_s, share, 0.0) for target_s, share in streams])
    passed_s = sum(share * min(said.mean_s, max(0.0, left_s - target_s)) for target_s, share in streams)
    assert said.mean_s == pytest.approx(wait_s + passed_s)
    assert math.isfinite(said.var_s2)
    assert said.var_s2 >= 1.0


def served_s(backlog_s: float, patient_s: float, urgent_s: float, load: float, random: Random) -> float:
    """One server, not interrupted: when a request that is due in patient_s begins behind `backlog_s`, while others of a
    second on average come that want to begin within urgent_s."""
    now_s, comes_s, due_s = backlog_s, random.expovariate(load), deque[float]()
    while True:
        while comes_s <= now_s:
            due_s.append(comes_s + urgent_s)
            comes_s += random.expovariate(load)
        if not due_s or due_s.popleft() >= patient_s:
            return now_s
        now_s += random.expovariate(1.0)


@pytest.mark.parametrize(("load", "patient_s"), [(0.3, 1e4), (0.7, 1e4), (0.7, 60.0), (0.9, 100.0), (1.3, 100.0)])
def test_against_a_queue_that_is_served_by_due_time(load: float, patient_s: float) -> None:
    """The mean within 10 %, and nine of ten within the bound."""
    random, backlog_s, urgent_s = Random(f"{load} {patient_s}"), 20.0, 5.0
    true = [served_s(backlog_s, patient_s, urgent_s, load, random) for _ in range(400)]
    said = overtaken(Wait(backlog_s), patient_s, [Stream(urgent_s, load, 2.0 * load)])
    assert said.mean_s == pytest.approx(fmean(true), rel=0.1)
    assert fmean(waited_s <= said.bound(1.28) for waited_s in true) >= 0.88


ONE = Work.of(100.0, 0.0, 10.0)


def test_rates_are_those_of_late() -> None:
    arrivals = Arrivals()
    assert arrivals.rates(5.0) == []
    for second in range(2_000):
        arrivals.add("m", 20.0, ONE, float(second))
    [(model, target_s, work)] = arrivals.rates(2_000.0)
    assert (model, target_s) == ("m", 20.0)
    assert work.count == pytest.approx(1.0, rel=0.01)
    assert work.output_mean == pytest.approx(100.0, rel=0.01)
    [(_, _, later)] = arrivals.rates(2_000.0 + 3 * MEMORY_S)
    assert later.count < 0.06


def test_a_rate_needs_no_memory_full_of_arrivals() -> None:
    arrivals = Arrivals()
    arrivals.add("m", 20.0, ONE, 0.0)
    assert arrivals.rates(0.0)[0][2].count == pytest.approx(1.0 / WATCHED_S, rel=0.05), "one is no flood"
    for second in range(1, 61):
        arrivals.add("m", 20.0, ONE, float(second))
    assert arrivals.rates(60.0)[0][2].count == pytest.approx(1.0, rel=0.05)


def test_targets_are_told_apart_and_bounded() -> None:
    arrivals = Arrivals()
    for target_s in (20.0, 21.0, 60.0):
        arrivals.add("m", target_s, ONE, 0.0)
    assert [target_s for _, target_s, _ in arrivals.rates(0.0)] == [21.0, 60.0]
    for number in range(2 * STREAMS_MAX):
        arrivals.add(f"m{number}", 20.0, ONE, float(number))
    rates = arrivals.rates(2.0 * STREAMS_MAX)
    assert len(rates) == STREAMS_MAX
    assert rates[-1][0] == f"m{2 * STREAMS_MAX - 1}", "the faintest went"
    assert sum((work for _, _, work in rates), NOTHING).count > 0.0
