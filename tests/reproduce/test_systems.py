"""The systems that are compared, run: the same machines and requests, and the order that the papers foresee."""

import pytest

from headrace.sim.fleet import kind_of
from loadtest.reproduce import together_scene as scene
from loadtest.reproduce.qlm_fleet import EIGHTH, Place, Trial, carry_out
from loadtest.reproduce.together_scene import Load, scenario
from loadtest.reproduce.together_systems import OURS, SINGLE, Hindsight, look_back
from loadtest.reproduce.together_systems import Trial as Run
from loadtest.reproduce.together_systems import carry_out as carry_out_mixed

HEAVY = Load(20.0, 12.0)


@pytest.mark.parametrize("apart", [True, False])
def test_every_system_has_the_same_gpus(apart: bool) -> None:
    fleet = scenario(HEAVY, apart=apart, cache=True).fleet
    assert fleet is not None
    assert fleet.gpus == scene.GPUS
    assert sum(kind_of(pool, scene.MODEL).gpus * pool.count for pool in fleet.pools) == scene.GPUS


def test_every_system_is_asked_the_same() -> None:
    told = [list(scenario(HEAVY, apart=apart, cache=apart).arrivals(3)) for apart in (True, False)]
    assert told[0] == told[1]
    assert any(each.parts for each in told[0])
    assert {each.slo_class for each in told[0]} == set(scene.CLASSES)


def test_stages_apart_keep_more_than_replicas_and_hindsight_no_less_than_ours() -> None:
    kept = {
        name: carry_out_mixed(Run(system, HEAVY, 1)) for name, system in (("fcfs", SINGLE["fcfs"][0]), ("ours", OURS))
    }
    assert kept["ours"]["attainment"] > kept["fcfs"]["attainment"] + 0.1
    assert kept["ours"]["requests"] == kept["fcfs"]["requests"]
    found = look_back(Hindsight(HEAVY, 1, 1))
    assert found["requests"] == kept["ours"]["requests"], "those turned away count as let down"
    assert found["attainment"] > kept["ours"]["attainment"] - 0.02


def test_the_planner_keeps_more_than_first_come_first_served_on_a_small_fleet() -> None:
    place = Place("W_A", 2.0, 5.0, 80.0, EIGHTH)
    ours, fcfs = (carry_out(Trial(place, policy, 1)) for policy in ("headrace", "fcfs"))
    assert ours["requests"] == fcfs["requests"]
    assert ours["attainment"] > fcfs["attainment"] + 0.05
