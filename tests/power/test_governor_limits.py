"""What holds for every fleet, load, noise and order of messages: limits, trust, quiet, and the way back."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.power.decision import Decision
from headrace.core.power.fleet import Fleet, Readings, Row
from headrace.core.power.governor import LEASE_S, Governor
from headrace.core.power.holding import Holding
from tests.power.governed import LEAST_W, MOST_W, World, fleet, run

STAGE = st.sampled_from(("encode", "prefill", "decode", "prefill+decode", "encode+prefill+decode"))
MESH = ("encode", "prefill", "decode", "prefill")


@st.composite
def worlds(draw: st.DrawFn) -> World:
    stages = draw(st.lists(STAGE, min_size=1, max_size=8))
    rows = draw(st.integers(1, 2))
    of_row = draw(st.lists(st.integers(0, rows - 1), min_size=len(stages), max_size=len(stages)))
    opaque = draw(st.lists(st.integers(0, len(stages) - 1), max_size=2))
    load = draw(st.lists(st.floats(0.0, 2.0), min_size=len(stages), max_size=len(stages)))
    made = fleet(
        stages,
        rows=[Row(f"row-{at}", "cold") for at in range(rows)],
        of_row=of_row,
        opaque=opaque,
        gpus=draw(st.integers(1, 4)),
    )
    return World(made, np.array(load), noise=draw(st.sampled_from((0.0, 0.03))), seed=draw(st.integers(0, 9)))


@given(worlds(), st.lists(st.floats(0.2, 1.1), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_caps_never_add_up_to_more_than_a_limit_that_can_be_reached(world: World, shares: list[float]) -> None:
    """Whatever the loads do meanwhile, and although each worker hears a batch now, a second later, or never."""
    governor, names = Governor(), [row.name for row in world.fleet.rows]
    most_w, least_w = world.fleet.by_row(world.fleet.most_w), world.fleet.by_row(world.fleet.least_w)
    for phase, share in enumerate(shares):
        world.load = world.rng.permutation(world.load)
        limit_w = np.maximum(share * most_w, 1.0)
        for name, watts in zip(names, limit_w, strict=True):
            governor.set_budget(name, float(watts))
        for second in range(8):
            said = governor.step(world.fleet, world.second(), 8.0 * phase + second)
            told = said.cap_w.copy()
            heard = world.rng.random(len(told)) < 0.7 if second else np.ones(len(told), dtype=bool)
            world.cap_w = np.where(heard, np.where(told > 0.0, told, np.inf), world.cap_w)
            kept = world.fleet.by_row(np.where(told > 0.0, told, world.fleet.most_w))
            assert (kept <= np.maximum(limit_w, least_w) + 1e-6).all(), "as told"
            assert (world.may_draw_w() <= np.maximum(limit_w, least_w) + 1e-6).all(), "as they hold"
            assert (said.cap_w <= world.fleet.most_w).all()
            assert ((said.cap_w == 0.0) | (said.cap_w >= LEAST_W)).all()
            fallback = world.fleet.by_row(said.fallback_w)
            assert (fallback <= np.maximum(limit_w, least_w) + 1e-6).all(), "if the governor dies now"


@given(worlds(), st.floats(0.3, 1.0))
@settings(max_examples=15, deadline=None)
def test_nothing_moves_while_nothing_changes(world: World, share: float) -> None:
    world.noise = 0.0
    governor = Governor()
    for row, most_w in zip(world.fleet.rows, world.fleet.by_row(world.fleet.most_w), strict=True):
        governor.set_budget(row.name, float(max(1.0, share * most_w)))
    run(governor, world, 40)
    seen = world.second()
    first = governor.step(world.fleet, seen, 40.0)
    for at in range(5):
        again = governor.step(world.fleet, seen, 40.0 + 0.01 * at)
        assert (again.cap_w == first.cap_w).all()
        assert again.audit == ()


@pytest.mark.parametrize("noise", [0.0, 0.03])
@pytest.mark.parametrize("load", [(0.9, 1.2, 0.95, 0.1), (0.4, 0.5, 0.9, 0.5), (2.0, 2.0, 2.0, 2.0)])
def test_a_constant_load_makes_no_oscillation(noise: float, load: tuple[float, ...]) -> None:
    world, governor = World(fleet(MESH), np.array(load), noise=noise), Governor()
    governor.set_budget("row-0", 1_400.0)
    run(governor, world, 30)
    caps = np.array([np.minimum(said.cap_w, MOST_W) for said in run(governor, world, 60, 30.0)])
    changes = (np.abs(np.diff(caps, axis=0)) > 0.5).any(axis=1)
    assert changes.mean() <= 0.1, "in one second of ten at most"
    assert (caps.max(axis=0) - caps.min(axis=0)).max() < 0.2 * MOST_W


def test_an_idle_device_that_begins_has_its_watts_in_two_seconds() -> None:
    world, governor = World(fleet(("prefill", "prefill")), np.array([0.0, 2.0])), Governor()
    governor.set_budget("row-0", 900.0)
    run(governor, world, 20)
    assert world.cap_w[0] == 200.0
    world.load = np.array([2.0, 2.0])
    run(governor, world, 3, 20.0)
    assert world.cap_w == pytest.approx([450.0, 450.0], abs=15.0)


def test_a_report_from_before_a_lower_cap_frees_nothing() -> None:
    """A worker was given more, then less a moment later; what it said in between was true before both."""
    governed, holding = fleet(("prefill", "prefill")), Holding()
    holding.move(np.array([-1, -1]))
    holding.adopt(governed, np.array([300.0, 300.0]))
    limit_w, counts, said = np.array([800.0]), np.ones(2), np.array([300.0, 300.0])

    def send(wanted_w: tuple[float, float], heard_s: float, now_s: float) -> list[float]:
        held = holding.held(governed, said, np.full(2, heard_s))
        caps = holding.send(governed, np.array(wanted_w), held, limit_w, counts, now_s)
        return [float(cap) for cap in caps]

    assert send((500.0, 300.0), 0.9, 1.0) == [500.0, 300.0]
    assert send((300.0, 500.0), 0.9, 1.1) == [300.0, 300.0], "the first may hold 500 W"
    assert send((300.0, 500.0), 1.2, 1.25) == [300.0, 300.0], "this report may be older than the lower cap"
    assert send((300.0, 500.0), 1.9, 2.0) == [300.0, 500.0]


# --- bad telemetry ---


def hurt(**changed: float) -> Callable[[Readings], Readings]:
    """The first device's readings changed."""

    def change(seen: Readings) -> Readings:
        fields = {name: getattr(seen, name).copy() for name in changed}
        for name, value in changed.items():
            fields[name][0] = value
        return replace(seen, **fields)

    return change


BAD = [
    (hurt(age_s=3.5), "stale"),
    (hurt(power_w=np.nan), "not a number"),
    (hurt(temp_c=np.nan), "not a number"),
    (hurt(temp_c=250.0), "absurd"),
    (hurt(power_w=-50.0), "absurd"),
    (hurt(expected_c=20.0), "implausible"),
]


@pytest.mark.parametrize(("change", "why"), BAD, ids=[f"{why}-{at}" for at, (_, why) in enumerate(BAD)])
def test_bad_readings_raise_no_cap_and_good_ones_are_believed_again(
    change: Callable[[Readings], Readings], why: str
) -> None:
    world, governor = World(fleet(("prefill", "prefill")), np.array([2.0, 0.0])), Governor()
    governor.set_budget("row-0", 900.0)
    run(governor, world, 20)
    assert world.cap_w[0] == 750.0 or world.cap_w[0] == np.inf or world.cap_w[0] > 650.0
    said, caps = [], [world.cap_w[0]]
    for second in range(10):
        said.append(governor.step(world.fleet, change(world.second()), 20.0 + second))
        world.obey(said[-1])
        caps.append(said[-1].cap_w[0])
    assert caps[1] == said[0].fallback_w[0] == 450.0
    assert caps[1:] == sorted(caps[1:], reverse=True), "never raised"
    if why != "stale":
        assert [(e.action, e.subject, e.reason) for e in said[0].audit if e.action == "distrust"] == [
            ("distrust", "w-0/gpu", f"{why}: safe cap")
        ]
        assert said[0].reason(0) == "its readings are not believed: safe cap"
    said = run(governor, world, 15, 30.0)
    assert "trust" in [entry.action for one in said for entry in one.audit]
    assert world.cap_w[0] > 650.0


def test_a_power_sensor_that_sticks_while_the_work_changes_is_found() -> None:
    world, governor, actions = World(fleet(("prefill",)), np.array([0.5])), Governor(), []
    for second in range(80):
        world.load = np.array([0.2 + 0.6 * (second % 2)])
        stuck = hurt(power_w=333.3, temp_c=50.0)(world.second())
        actions += [entry.reason for entry in governor.step(world.fleet, stuck, float(second)).audit]
    assert "stuck: safe cap" in actions


def test_an_idle_device_is_not_taken_for_a_stuck_one() -> None:
    world, governor = World(fleet(("prefill",)), np.array([0.0])), Governor()
    for second in range(120):
        still = hurt(power_w=121.7, temp_c=37.0)(world.second())
        assert governor.step(world.fleet, still, float(second)).audit == ()


def test_who_keeps_another_cap_is_counted_with_it() -> None:
    world, governor, said = World(fleet(("prefill", "prefill")), np.array([2.0, 2.0])), Governor(), []
    governor.set_budget("row-0", 1_000.0)
    for second in range(20):
        said.append(governor.step(world.fleet, world.second(), float(second)))
        world.obey(said[-1])
        world.cap_w[0] = np.inf
    assert said[-1].cap_w[1] <= 1_000.0 - MOST_W
    assert "keeps another cap than it was told: safe cap" in [e.reason for one in said for e in one.audit]


# --- workers that come and go ---


def test_a_silent_worker_keeps_its_watts_until_its_lease_ends_then_others_have_them() -> None:
    world, governor = World(fleet(("prefill", "prefill")), np.array([2.0, 2.0])), Governor()
    governor.set_budget("row-0", 800.0)
    run(governor, world, 20)
    caps, actions, last = [], [], None
    for second in range(20):
        last = governor.step(world.fleet, hurt(age_s=0.1 + second)(world.second()), 20.0 + second)
        world.obey(last)
        caps.append(world.cap_w.copy())
        actions += [entry.action for entry in last.audit]
    assert max(cap[1] for cap in caps[: int(3.0 + LEASE_S)]) <= 400.0
    assert caps[-1][1] > 690.0
    assert caps[-1][0] <= 400.0, "and is told its safe cap, in case that it hears"
    assert actions.index("distrust") < actions.index("fallback")
    assert last is not None
    assert last.rows[0].power_w <= 720.0


def test_a_silent_worker_may_take_its_fallback_when_its_lease_ends() -> None:
    """It was idle at its lowest cap, and the other had its watts: these are back before it may take them."""
    world, governor = World(fleet(("prefill", "prefill")), np.array([0.0, 2.0])), Governor()
    governor.set_budget("row-0", 800.0)
    run(governor, world, 20)
    assert world.cap_w.tolist() == [LEAST_W, 650.0]
    for second in range(8):
        world.obey(governor.step(world.fleet, hurt(age_s=0.1 + second)(world.second()), 20.0 + second))
        if second >= LEASE_S - 1.0:
            assert world.cap_w[1] + world.fallback_w[0] <= 800.0


def test_a_worker_that_comes_is_counted_at_once_and_finds_its_cap() -> None:
    world, governor = World(fleet(("prefill", "prefill")), np.array([2.0, 2.0])), Governor()
    governor.set_budget("row-0", 900.0)
    run(governor, world, 20)
    bigger = World(fleet(("prefill", "prefill", "prefill")), np.full(3, 2.0))
    bigger.cap_w = np.array([*world.cap_w, np.inf])
    said = governor.step(bigger.fleet, bigger.second(), 20.0)
    bigger.obey(said)
    assert bigger.may_draw_w()[0] <= 900.0
    run(governor, bigger, 10, 21.0)
    assert bigger.cap_w == pytest.approx(np.full(3, 300.0), abs=15.0)


def test_a_new_governor_takes_over_the_caps_that_hold() -> None:
    world, first, second = World(fleet(("prefill", "decode")), np.array([2.0, 2.0])), Governor(), Governor()
    first.set_budget("row-0", 600.0)
    run(first, world, 20)
    held = world.cap_w.copy()
    second.set_budget("row-0", 600.0)
    said = second.step(world.fleet, world.second(), 100.0)
    world.obey(said)
    assert world.may_draw_w()[0] <= 600.0
    assert (said.cap_w <= held + 1.0).all(), "nobody is raised before somebody else is known to be lower"


def test_a_fleet_of_nobody_is_no_trouble() -> None:
    said: Decision = Governor().step(Fleet((Row("row-0", budget_w=100.0),), (), ()), Readings.unknown(0), 0.0)
    assert said.rows[0].power_w == 0.0
    assert said.notes == ()
