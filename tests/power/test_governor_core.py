"""The governor's decisions as tables and transcripts: who gives way, in which order, and what is told of it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq

from headrace.control.constants import H100
from headrace.core.power.fleet import Fleet, Row
from headrace.core.power.governor import Governor
from tests.power.governed import LEAST_W, MOST_W, World, fleet, run

MESH = ("encode", "prefill", "decode")
FULL = np.array([1.0, 1.0, 1.0])
SPANS = ((5, 20), (25, 40), (50, 60))
FREE_W = H100.context_w + (H100.decode_w - H100.context_w) * H100.decode_free_speed**H100.speed_exponent


def governed(world: World, budget_w: float, seconds: int = 20) -> tuple[Governor, np.ndarray]:
    """After some seconds at full power, the caps under a budget."""
    governor = Governor()
    run(governor, world, 5)
    governor.set_budget("row-0", budget_w)
    return governor, run(governor, world, seconds, 5.0)[-1].cap_w


def test_without_a_limit_nobody_is_capped_and_nothing_is_asked_of_anybody() -> None:
    said = run(Governor(), World(fleet(MESH), FULL, noise=0.03), 30)
    for decision in said:
        assert decision.cap_w.tolist() == [0.0] * 3
        assert decision.fallback_w.tolist() == [0.0] * 3
        assert decision.weight.tolist() == decision.slots_share.tolist() == [1.0] * 3
        assert (decision.factors == 1.0).all()
        assert decision.audit == ()


@pytest.mark.parametrize(
    ("budget_w", "load", "capped", "why"),
    [
        (2_100, (1.0, 1.0, 1.0), (), "all at their own limits keep it"),
        (1_900, (1.0, 1.0, 1.0), (2,), "decode gives its headroom, that nobody misses"),
        (1_700, (1.0, 1.0, 1.0), (2,), "and speed that it waits for memory with"),
        (1_400, (1.0, 1.0, 1.0), (0, 1, 2), "then everybody"),
        (1_700, (0.0, 1.0, 1.0), (0, 2), "headroom first, of the idle and of decode: all keep what they want"),
        (1_700, (0.3, 1.0, 1.0), (2,), "decode before anybody who computes, however lightly loaded"),
        (1_500, (0.3, 1.0, 1.0), (0, 2), "one that is lightly loaded slows down before a busy one does"),
    ],
)
def test_who_gives_way(budget_w: float, load: tuple[float, ...], capped: tuple[int, ...], why: str) -> None:
    world = World(fleet(MESH), np.array(load))
    governed(world, budget_w)
    slowed = [at for at, cap in enumerate(world.cap_w) if cap < world.fleet.most_w[at] - 1.0]
    assert tuple(slowed) == capped, why
    assert world.may_draw_w()[0] <= budget_w
    assert all(world.cap_w[at] >= min(FREE_W - 1.0, MOST_W) for at in (1, 2) if budget_w >= 1_700), "at no loss"


def test_what_is_left_is_used_and_stages_slow_down_alike() -> None:
    world = World(fleet(MESH), np.full(3, 2.0))
    _, caps = governed(world, 1_200.0, 40)
    assert 1_200.0 * 0.97 <= caps.sum() <= 1_200.0
    assert world.done == pytest.approx(np.full(3, world.done.min()), abs=0.06), "no stage is much narrower than another"


def test_an_emergency_takes_a_quarter_of_the_power_and_a_tenth_of_the_air() -> None:
    world, governor = World(fleet(MESH), FULL), Governor()
    run(governor, world, 5)
    governor.declare("ups")
    (row,) = run(governor, world, 20, 5.0)[-1].rows
    assert (row.budget_w, row.limit_w) == (0.0, 0.75 * 3 * MOST_W), "without a budget: of the devices' own limits"
    assert world.may_draw_w()[0] <= row.limit_w
    governor.clear("ups")
    assert run(governor, world, 3, 25.0)[-1].cap_w.tolist() == [0.0] * 3
    governor.declare("ahu")
    (row,) = run(governor, world, 20, 28.0)[-1].rows
    assert row.limit_w == 0.0
    needs = world.fleet.air_base.sum() + float(world.fleet.air_per_w @ np.minimum(world.cap_w, MOST_W))
    assert needs <= row.air_limit_m3s * 1.0001
    assert row.air_limit_m3s == pytest.approx(0.9 * 3 * 0.065)
    assert any("short of air" in decision.reason(2) for decision in run(governor, world, 1, 48.0))


def test_rows_share_an_aisles_air_and_nothing_of_their_power() -> None:
    rows = (Row("a", "cold", 700.0, 0.10), Row("b", "cold", 0.0, 0.10))
    world, governor = World(fleet(("prefill",) * 4, rows=rows, of_row=(0, 0, 1, 1)), np.full(4, 2.0)), Governor()
    said = run(governor, world, 20)[-1]
    assert world.may_draw_w()[0] <= 700.0
    needs = world.fleet.air_base.sum() + float(world.fleet.air_per_w @ np.minimum(world.cap_w, MOST_W))
    assert 0.18 < needs <= 0.2 * 1.0001, "what one row does not need of the air, the other has"
    assert [row.limit_w for row in said.rows] == [700.0, 0.0]


def test_opaque_tenants_give_way_last() -> None:
    world = World(fleet(("prefill", "decode", ""), opaque=(2,)), np.array([2.0, 2.0, 0.8]))
    _, caps = governed(world, 1_100.0)
    assert caps[2] == 0.0 or caps[2] >= 600.0
    assert caps[0] < 400.0
    _, caps = governed(world, 500.0)
    assert caps.tolist() == [LEAST_W, LEAST_W, 200.0]


def test_what_cannot_be_reached_is_said_and_admission_does_the_rest() -> None:
    world, governor = World(fleet(MESH), FULL), Governor()
    run(governor, world, 5)
    governor.set_budget("row-0", 420.0)
    said = run(governor, world, 3, 5.0)
    assert said[0].cap_w.tolist() == [LEAST_W] * 3
    assert said[0].slots_share.max() < 1.0
    assert "420 W cannot be kept by caps alone, 450 W is the least" in said[0].notes[0]
    assert [entry.action for entry in said[0].audit][-1] == "admission"
    governor.set_budget("row-0", 2_000.0)
    said = run(governor, world, 9, 8.0)
    assert said[-1].slots_share.tolist() == [1.0] * 3
    assert said[-1].notes == ()


def test_a_hot_device_is_slowed_and_its_watts_go_to_others() -> None:
    world, governor = World(fleet(("prefill",) * 2), np.full(2, 2.0)), Governor()
    governor.set_budget("row-0", 1_000.0)
    for second in range(20):
        seen = replace(world.second(), thermal=np.array([0.7, 1.0]))
        said = governor.step(world.fleet, seen, float(second))
        world.obey(said)
    assert said.reason(0) == "too warm"
    assert world.cap_w[0] < 300.0 < 650.0 < world.cap_w[1]
    assert world.may_draw_w()[0] <= 1_000.0


def test_devices_that_draw_more_than_their_caps_are_given_less() -> None:
    world, governor = World(fleet(MESH), np.full(3, 2.0)), Governor()
    governor.set_budget("row-0", 1_200.0)
    for second in range(60):
        seen = world.second()
        world.power_w *= 1.03
        world.obey(governor.step(world.fleet, replace(seen, power_w=world.power_w), float(second)))
    assert world.power_w.sum() <= 1_200.0 * 1.012


def test_a_device_nobody_may_cap_counts_with_all_it_may_draw() -> None:
    base = fleet(MESH)
    devices = (replace(base.devices[0], least_w=0.0), *base.devices[1:])
    world = World(Fleet(base.rows, base.members, devices), FULL)
    _, caps = governed(world, 1_300.0)
    assert caps[0] == 0.0
    assert MOST_W + caps[1:].sum() <= 1_300.0
    _, caps = governed(world, 1_000.0)
    assert caps.tolist() == [0.0, LEAST_W, LEAST_W]


def test_an_idle_worker_counts_with_the_speed_that_it_will_have() -> None:
    world = World(fleet(("prefill", "prefill", "decode")), np.array([2.0, 0.0, 2.0]))
    governor, caps = governed(world, 900.0, 30)
    assert caps[1] == LEAST_W
    (prefill, _, _) = governor.step(world.fleet, world.second(), 36.0).factors[1]
    idle = governor.step(world.fleet, world.second(), 37.0).factors[1][1]
    assert idle == pytest.approx(prefill, abs=0.1)


def test_a_budget_step_reads_like_this() -> None:
    """100 to 70 percent and back, three stages, 3 % of noise on every reading."""
    world, governor, log = World(fleet(MESH), np.array([0.8, 0.9, 0.9]), noise=0.03), Governor(), []
    full_w = 1_780.0
    governor.set_budget("row-0", full_w)
    for second in range(60):
        if second in (20, 40):
            governor.set_budget("row-0", 0.7 * full_w if second == 20 else full_w)
        seen = world.second()
        limit_w = 0.7 * full_w if 20 < second <= 40 else full_w
        log.append((second, float(world.power_w.sum()), limit_w, world.done.copy()))
        said = governor.step(world.fleet, seen, float(second))
        world.obey(said)
        assert world.may_draw_w()[0] <= (0.7 * full_w if 20 <= second < 40 else full_w)
    over = [(second, watts / limit) for second, watts, limit, _ in log if watts > limit * 1.001]
    assert over == [], "the very next second keeps the new budget"
    before, during, after = (np.mean([done for at, _, _, done in log if a <= at < b], axis=0) for a, b in SPANS)
    assert before == pytest.approx([0.8, 0.9, 0.9], abs=0.01)
    assert during.min() > 0.79, "70 % of the watts, nearly all of the work: decode gives what it does not miss"
    assert after == pytest.approx([0.8, 0.9, 0.9], abs=0.02)


def attainable(world: World, budget_w: float) -> float:
    """The share of its load that the narrowest stage can do at best: the same for all, with the least watts for it."""

    def watts(share: float) -> float:
        need = np.minimum(1.0, share * world.load)
        speed = np.maximum(np.where(world.decodes, need * H100.decode_free_speed, need), H100.speed_least)
        drawn = H100.context_w + (world.phase_w - H100.context_w) * speed**H100.speed_exponent
        return float(np.maximum(drawn, LEAST_W).sum())

    return 1.0 if watts(1.0) <= budget_w else float(brentq(lambda share: watts(share) - budget_w, 0.01, 1.0))


@pytest.mark.parametrize("share", [0.5, 0.6, 0.7, 0.8, 0.9])
@pytest.mark.parametrize("load", [(1.0, 1.0, 1.0), (0.5, 0.9, 0.9), (0.1, 1.0, 1.0)])
def test_nearly_all_work_that_a_budget_permits_is_done(load: tuple[float, ...], share: float) -> None:
    world, governor = World(fleet(MESH), np.array(load), noise=0.03), Governor()
    budget_w = share * float(world.phase_w.sum())
    governor.set_budget("row-0", budget_w)
    run(governor, world, 40)
    done = []
    for second in range(30):
        run(governor, world, 1, 40.0 + second)
        done.append(world.done / world.load)
    narrowest = float(np.minimum(1.0, np.mean(done, axis=0)).min())
    assert narrowest >= 0.97 * attainable(world, budget_w)


def test_a_cap_for_ever_is_waste_that_shows() -> None:
    """What the governor must be better than: the same budget shared once, whatever the work."""
    load = np.array([0.05, 1.0, 0.9])
    static, world = World(fleet(MESH), load), World(fleet(MESH), load)
    static.cap_w = np.full(3, 1_250.0 / 3)
    governed(world, 1_250.0, 30)
    for _ in range(30):
        static.second()
    assert static.done[1] < 0.87
    assert world.done[1] > 0.97
