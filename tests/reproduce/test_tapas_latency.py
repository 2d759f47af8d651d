"""Requests under a TAPAS run's caps: the same questions for every variant, slower where the plan was slower."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.control.constants import H100
from loadtest.reproduce.tapas import VARIANTS, Plan
from loadtest.reproduce.tapas_latency import (
    BATCH,
    Answers,
    Moment,
    Sampling,
    Stretch,
    Watch,
    latencies,
    seconds_of,
    ttft_most_s,
)
from loadtest.reproduce.tapas_load import ENDPOINTS, RATES, Case, load
from loadtest.reproduce.tapas_rivals import SLACK, SPEEDS, STATIC_SPEED, Rivals
from loadtest.reproduce.tapas_world import Variant, World

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
CASE = Case(seed=1, days=1, rows=2, servers_of_row=12, over=0.25)
recorded = pytest.mark.skipif(not (DATA / RATES).is_file(), reason="the recorded traces are not here")
IMAGES = next(at for at, each in enumerate(ENDPOINTS) if each.name == "images")


def moment(work: float = 0.6, prefill: float = 1.0, decode: float = 1.0, capacity: float = 1.0) -> Moment:
    same = np.ones(4)
    return Moment(work * same, capacity * same, prefill * same, decode * same, 1.0, 1.0)


def stretch(*moments: Moment, endpoint: int = IMAGES, routed: bool = False) -> Stretch:
    kept = dict(enumerate(moments))
    return Stretch(CASE, endpoint, np.array([0, 2]), range(len(moments)), kept, H100.decode_free_speed, routed)


@cache
def figures(work: float, prefill: float = 1.0, decode: float = 1.0, capacity: float = 1.0) -> dict[str, float]:
    answers = Answers()
    answers.add(stretch(moment(work, prefill, decode, capacity)).run())
    return answers.figures()


def test_requests_come_at_the_rate_of_the_work_and_are_the_same_at_any_speed() -> None:
    fast, slow = stretch(moment(), moment()).run(), stretch(moment(prefill=0.5), moment(prefill=0.5)).run()
    assert len(fast.requests) == pytest.approx(2 * 60 * 2 * 0.6 / seconds_of("images"), rel=0.1)
    for column in ("arrival_s", "input_tokens", "target_s"):
        assert np.array_equal(getattr(fast.requests, column), getattr(slow.requests, column)), column


def test_an_instance_does_work_1_and_not_much_more() -> None:
    assert figures(0.6)["goodput"] > 0.95
    assert figures(1.4)["goodput"] < 0.7
    assert figures(1.4)["ttft_p99_s"] > 3 * figures(0.6)["ttft_p99_s"]


@pytest.mark.parametrize(("name", "of"), [("prefill", {"prefill": 0.6}), ("both", {"prefill": 0.5, "decode": 0.5})])
def test_a_slower_plan_is_seen_by_who_asks(name: str, of: dict[str, float]) -> None:
    assert figures(0.6, **of)["ttft_p99_s"] > 1.2 * figures(0.6)["ttft_p99_s"]
    assert figures(0.6, **of)["goodput"] < figures(0.6)["goodput"]


def test_decoding_is_free_down_to_a_point_and_eight_bits_are_faster() -> None:
    plain = figures(0.6)
    assert figures(0.6, decode=H100.decode_free_speed) == plain
    assert figures(0.6, capacity=1.5)["ttft_p99_s"] < plain["ttft_p99_s"]


def test_whoever_is_never_answered_counts_as_late() -> None:
    answers = Answers()
    answers.add(stretch(moment(3.0, prefill=0.35, decode=0.35)).run())
    assert answers.figures()["ttft_p99_s"] == pytest.approx(60.0, rel=0.2)
    assert answers.good < 0.5 * answers.asked


def test_a_long_prompt_may_take_longer() -> None:
    assert ttft_most_s(3_000) > 2 * ttft_most_s(1_000) > 2 * ttft_most_s(10) > 0


def test_the_queue_manager_is_told_of_what_is_routed() -> None:
    uneven = Moment(np.array([0.8, 0.0, 0.1, 0.0]), np.ones(4), np.ones(4), np.ones(4), 1.0, 1.0)
    told, untold = (stretch(uneven, routed=routed)._speeds() for routed in (True, False))
    assert [round(each.governance.weight, 3) for each in told] == [1.0, 0.5]
    assert [each.governance.weight for each in untold] == [1.0, 1.0]


# --- what is sampled ---


@recorded
def test_every_variant_is_sampled_at_the_same_hours() -> None:
    loads, sampling = load(CASE, DATA), Sampling(2, 5, 2)
    stretches = sampling.stretches(CASE, loads)
    assert stretches == sampling.stretches(CASE, load(CASE, DATA))
    assert len(stretches) == 4
    assert all(len(each) == 5 and each.start >= 0 and each.stop <= CASE.minutes for each in stretches)
    hottest = loads.outside_c.reshape(-1, 60).mean(axis=1)
    assert hottest[stretches[0].start // 60] == hottest.max()
    for endpoint, picked in enumerate(sampling.picked(CASE, loads)):
        assert set(loads.endpoint[picked]) == {endpoint}
        assert len(picked) <= 2


@recorded
@pytest.mark.parametrize("variant", [VARIANTS[0], VARIANTS[-1], Variant(place=True, rival="slack")])
def test_only_the_sampled_minutes_are_kept_and_answered(variant: Variant) -> None:
    short, sampling = Case(seed=1, days=1, rows=2, servers_of_row=8, over=0.25), Sampling(0, 1, 1)
    loads = load(short, DATA)
    watch = Watch([range(3, 4)])
    world = World(short, loads, variant, {}, watch)
    for minute in range(5):
        world._minute(minute)
    assert list(watch.moments) == [3]
    kept = watch.moments[3]
    assert kept.work.sum() == pytest.approx(loads.work[3].sum())
    found = latencies(short, loads, watch, sampling, routed=variant.route)
    assert {"ttft_p99_s", "tbt_p99_s", "goodput", "opaque_sampled"} <= found.keys()
    assert 0 < found["goodput"] <= 1
    assert world.kept.tokens > 0


def test_a_quick_plan_is_a_part_of_the_whole_one() -> None:
    quick, whole = Plan(1, (0.4,), large=False), Plan(7, (0.0, 0.4), large=True)
    assert len(quick.jobs((1,), DATA)) < 25
    parts = {job.part for job in whole.jobs((1,), DATA)}
    assert parts == {"ablation", "rivals", "warm", "over", "emergency", "large"}
    assert {job.part for job in quick.jobs((1,), DATA)} == parts - {"large"}


# --- rivals ---


def rivals(rival: Any, share: float = 0.4, count: int = 3) -> Rivals:
    return Rivals(rival, H100, np.full(count, share))


def test_by_slack_each_phase_has_a_clock_of_its_own() -> None:
    made = rivals("slack")
    made.choose(np.array([0.2, 0.6, 2.0]), np.zeros(3))
    capacity, dynamic = made.running()
    assert (capacity[:2] * SLACK >= (0.2, 0.6)).all(), "slower only while it suffices"
    assert capacity[2] == pytest.approx(1.0)
    assert (np.diff(dynamic) > 0).all()
    for clock in SPEEDS:
        other = rivals("slack")
        other.prefill, other.decode = np.full(3, clock), np.full(3, clock)
        able, drawn = other.running()
        if able[1] * SLACK >= 0.6:
            assert dynamic[1] / capacity[1] <= drawn[1] / able[1], f"one clock of {clock} would draw less"


def test_by_row_a_step_at_a_time_and_static_never() -> None:
    by_row, static = rivals("row"), rivals("static")
    for _ in range(3):
        by_row.choose(np.zeros(3), np.array([1.0, 0.9, 0.5]))
        static.choose(np.zeros(3), np.array([1.0, 0.9, 0.5]))
    assert by_row.prefill.tolist() == [SPEEDS[3], 1.0, 1.0]
    assert static.prefill.tolist() == [STATIC_SPEED] * 3
    by_row.choose(np.zeros(3), np.zeros(3))
    assert by_row.decode[0] == SPEEDS[2]


def test_the_batch_is_what_capacity_is_of() -> None:
    pool = stretch(moment())._scenario().fleet
    assert pool is not None
    assert pool.pools[0].slots == BATCH
