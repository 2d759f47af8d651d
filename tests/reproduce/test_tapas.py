"""A day of the TAPAS world: the frozen baseline throttles, the three controllers together do not, nothing is lost."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from loadtest.reproduce.tapas_load import ENDPOINTS, RATES, Case, DataError, load
from loadtest.reproduce.tapas_world import Variant, World

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
CASE = Case(seed=1, days=1, rows=2, servers_of_row=12, over=0.25)
recorded = pytest.mark.skipif(not (DATA / RATES).is_file(), reason="the recorded traces are not here")


@cache
def day(*on: str) -> dict[str, float]:
    variant = Variant("place" in on, "route" in on, "configure" in on)
    return World(CASE, load(CASE, DATA), variant).run()


@recorded
def test_the_baseline_must_throttle_or_the_comparison_says_nothing() -> None:
    assert day()["power_events"] > 100


@recorded
def test_all_together_throttle_next_to_never_and_serve_as_much() -> None:
    none, full = day(), day("place", "route", "configure")
    assert full["power_events"] < 0.02 * none["power_events"]
    assert full["row_power_peak_w"] < 0.9 * none["row_power_peak_w"]
    assert full["served_share"] > 0.99
    assert full["opaque_served_share"] > none["opaque_served_share"]
    assert full["quality"] > 0.98


@recorded
def test_each_alone_helps_with_power() -> None:
    for one in ("place", "configure"):
        assert day(one)["power_events"] < day()["power_events"]


@recorded
def test_a_lost_ups_is_survived_by_those_that_can_give_way() -> None:
    world = World(CASE, load(CASE, DATA), Variant(True, True, True), {600: {"ups"}, 660: set()})
    lost = world.run()
    calm = day("place", "route", "configure")
    assert calm["power_events"] <= lost["power_events"] < 60 * CASE.rows, "not every minute of the hour"
    assert lost["served_share"] > 0.95


@recorded
def test_every_variant_sees_the_same_day() -> None:
    one, other = load(CASE, DATA), load(CASE, DATA)
    assert np.array_equal(one.opaque, other.opaque)
    assert np.array_equal(one.work, other.work)
    assert one.work.shape == (1_440, len(ENDPOINTS))
    assert sorted(one.order.tolist()) == list(range(one.opaques + one.servings))
    assert (one.work.max(axis=0) < 1.5 * np.bincount(one.endpoint)).all()


def test_without_the_traces_it_says_which_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=RATES):
        load(CASE, tmp_path)


@recorded
def test_it_begins_settled() -> None:
    """What the models learnt at has gone: the first minute is as hot as the same minute again."""
    world = World(CASE, load(CASE, DATA), Variant())
    world._minute(0)
    unsettled_c = world.kept.t_max_c
    world._settle()
    assert (world.kept.t_max_c, world.kept.asked) == (0.0, 0.0)
    world._minute(0)
    first_c = world.kept.t_max_c
    world._settle()
    world._minute(0)
    assert world.kept.t_max_c == pytest.approx(first_c, abs=0.5)
    assert unsettled_c > first_c
