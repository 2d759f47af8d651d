"""Placement, routing, configuration and emergencies: limits are kept where they can be, and preferences are seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.power import routing
from headrace.core.power.configuration import Config, Hysteresis, Wanted, choose, pareto, rate
from headrace.core.power.emergency import Emergency, cut
from headrace.core.power.placement import Ask, Ground, Kind, place
from headrace.core.power.routing import Instances, Room, spread

HOURS = 4
ROW = np.repeat(np.arange(4), 3)


def ground(*, row_most: float = 100.0, aisle_most: float = 100.0, warm: np.ndarray | None = None) -> Ground:
    cool = np.full(12, 30.0) if warm is None else warm
    heat = (cool, np.full(12, 0.05), 80.0)
    return Ground.empty(ROW, ROW // 2, np.full(4, row_most), np.full(2, aisle_most), heat, HOURS)


def ask(kind: Kind = "opaque", watts: float = 10.0, *, peak: int = 0, air: float = 1.0, gpu_w: float = 400.0) -> Ask:
    server = np.full(HOURS, 0.3 * watts)
    server[peak] = watts
    return Ask(kind, server, np.full(HOURS, air), gpu_w)


# --- placement ---


def test_what_peaks_at_another_hour_fits_where_the_sum_of_peaks_would_not() -> None:
    books = ground(row_most=15.0)
    for server in (3, 6, 9):
        books.take(ask(watts=14.0, peak=1), server)
    books.take(ask(watts=11.0, peak=0), 0)
    placed = place(ask(watts=11.0, peak=2), books)
    assert placed is not None
    assert placed.within
    assert ROW[placed.server] == 0, "11 at one hour and 11 at another are 14.3 at most"


def test_opaque_and_serving_stand_in_every_row() -> None:
    books = ground()
    for kind in ("opaque", "serving") * 4:
        placed = place(ask(kind), books)
        assert placed is not None
        books.take(ask(kind), placed.server)
    assert books.counts.tolist() == [[1.0, 1.0]] * 4


def test_the_hot_go_where_it_is_cool_and_the_flexible_where_it_is_warm() -> None:
    warm = np.tile([30.0, 33.0, 36.0], 4)
    for kind, expected in (("opaque", 30.0), ("serving", 36.0)):
        placed = place(ask(kind), ground(warm=warm))  # type: ignore[arg-type]
        assert placed is not None
        assert warm[placed.server] == expected


@pytest.mark.parametrize(
    ("books", "wanted", "broken"),
    [
        (ground(row_most=9.0), ask(), "row power"),
        (ground(aisle_most=0.5), ask(), "aisle airflow"),
        (ground(), ask(gpu_w=1_200.0), "temperature"),
    ],
)
def test_where_nothing_keeps_the_limits_the_least_broken_is_taken_and_said(
    books: Ground, wanted: Ask, broken: str
) -> None:
    placed = place(wanted, books)
    assert placed is not None
    assert not placed.within
    assert placed.reason.startswith(broken)


def test_a_full_house_places_nobody_and_who_leaves_makes_room() -> None:
    books = ground()
    for server in range(12):
        books.take(ask(), server)
    assert place(ask(), books) is None
    books.leave(ask(), 7)
    placed = place(ask(), books)
    assert placed is not None
    assert placed.server == 7
    assert np.allclose(books.row_w.sum(), 11 * ask().server_w.sum())


# --- routing ---


def instances(count: int = 8, *, coolest: float = 1.0) -> Instances:
    rows = np.arange(count) % 4
    ones = np.ones(count)
    return Instances(rows, rows // 2, 10.0 * ones, 5.0 * ones, 0.1 * ones, coolest * ones)


def room(*taken: float) -> Room:
    return Room(np.array(taken), np.full(4, 100.0), np.zeros(2), np.full(2, 100.0))


@given(work=st.floats(0.0, 79.0), taken=st.lists(st.floats(0.0, 85.0), min_size=4, max_size=4))
def test_all_work_is_placed_and_limits_are_kept_where_that_can_be(work: float, taken: list[float]) -> None:
    those, left = instances(), room(*taken)
    loads = spread(work, those, left)
    assert (loads >= -1e-9).all()
    assert (loads <= 1.0 + 1e-9).all()
    assert float(loads @ those.capacity) == pytest.approx(work, abs=1e-3)
    drawn = left.row_w + np.bincount(those.row, loads * those.load_w, 4)
    able = float(routing._level(routing.HIGH, those, left) @ those.capacity)
    if able >= work:
        assert (drawn <= np.maximum(routing.HIGH * left.row_most_w, left.row_w) + 1e-6).all()


def test_a_row_near_its_limit_is_spared() -> None:
    loads = spread(60.0, instances(), room(90.0, 20.0, 20.0, 20.0))
    assert loads[0] < 0.6 < loads[1]


def test_a_hot_gpu_is_spared() -> None:
    warm = instances()
    warm.coolest[3] = 0.2
    loads = spread(60.0, warm, room(0.0, 0.0, 0.0, 0.0))
    assert loads[3] <= 0.2
    assert float(loads @ warm.capacity) == pytest.approx(60.0)


def test_in_calm_rows_and_gpus_are_filled_to_the_same_share() -> None:
    assert spread(20.0, instances(), room(10.0, 10.0, 10.0, 10.0)) == pytest.approx(0.25, abs=1e-3)
    uneven = spread(20.0, instances(), room(10.0, 10.0, 10.0, 60.0))
    assert uneven[3] < uneven[0]


# --- configuration ---

BEST, EIGHT_BIT, SMALL = Config("70b", 1.0, 1.0, 1.0), Config("70b fp8", 1.5, 0.9, 0.99), Config("13b", 4.0, 0.8, 0.8)
POINTS = pareto((BEST, EIGHT_BIT, SMALL), (1.0, 0.9, 0.8, 0.7, 0.6), prefill=0.5, decode_free=0.75, exponent=3.56)


def test_decode_loses_nothing_down_to_its_free_speed() -> None:
    assert rate(0.75, 0.0, 0.75) == 1.0
    assert rate(0.75, 1.0, 0.75) == 0.75
    assert rate(0.5, 0.0, 0.75) == pytest.approx(2 / 3)


def test_no_point_of_the_table_is_beaten_by_another() -> None:
    for one in POINTS:
        assert not any(
            other.capacity >= one.capacity and other.dynamic < one.dynamic and other.quality >= one.quality
            for other in POINTS
        )
    assert POINTS[0].config == BEST
    assert POINTS[0].speed == 1.0


@pytest.mark.parametrize(
    ("wanted", "may_reload", "config", "speed"),
    [
        (Wanted(0.5, 1.0, 0.9), True, BEST, 0.6),  # plenty of power: the slowest that does the work
        (Wanted(0.95, 1.0, 0.9), True, BEST, 1.0),
        (Wanted(0.9, 0.3, 0.9), True, EIGHT_BIT, None),  # speed alone cannot do it
        (Wanted(0.9, 0.3, 0.9), False, BEST, 0.7),  # and no reload: as fast as the power allows
        (Wanted(3.0, 1.0, 0.5), True, SMALL, None),
    ],
)
def test_least_power_that_does_the_work(wanted: Wanted, may_reload: bool, config: Config, speed: float | None) -> None:
    found = POINTS[choose(POINTS, wanted, 0, may_reload=may_reload)]
    assert found.config == config
    assert speed is None or found.speed == speed
    assert found.dynamic * min(1.0, wanted.work / found.capacity) <= wanted.dynamic_most + 1e-9


def test_down_at_once_and_up_after_a_calm_minute() -> None:
    rows = Hysteresis.of(2)
    must, may = rows.look(np.array([0.97, 0.5]), 0.0)
    assert (must.tolist(), may.tolist()) == ([True, False], [False, False])
    must, may = rows.look(np.array([0.9, 0.5]), 60.0)
    assert (must.tolist(), may.tolist()) == ([False, False], [False, True])
    rows.look(np.array([0.5, 0.85]), 100.0)
    assert rows.look(np.array([0.5, 0.5]), 130.0)[1].tolist() == [False, False], "calm begins anew"


# --- emergencies ---


def test_what_a_lost_ups_and_air_handler_leave() -> None:
    both = Emergency({"ups", "ahu"})
    power, air = both.limits(np.array([200.0]), np.array([10.0]))
    assert (power[0], air[0]) == (150.0, 9.0)


@given(
    drawn=st.lists(st.floats(100.0, 700.0), min_size=6, max_size=6),
    most=st.floats(300.0, 4_200.0),
)
def test_a_cut_goes_stage_by_stage_and_no_further_than_it_must(drawn: list[float], most: float) -> None:
    watts, least, stages = np.array(drawn), np.full(6, 90.0), np.array([0, 1, 1, 2, 4, 4])
    given_w = cut(watts, least, stages, most)
    assert given_w.sum() == pytest.approx(min(watts.sum(), max(most, least.sum())))
    touched = given_w < watts - 1e-6
    for stage in (1, 2, 4):
        if touched[stages == stage].any():
            assert given_w[stages < stage] == pytest.approx(least[stages < stage]), "those before have given all"
