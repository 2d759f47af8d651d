"""The queue's planner in the simulated world: evictions and model swaps as it decides on them, whatever befalls."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core import effects as fx
from headrace.core.events import PlanSolved
from headrace.core.planning.problem import Problem
from headrace.sim.policy import POLICIES, Policy, PolicyError
from headrace.sim.result import REASONS, Result
from headrace.sim.run import Run
from headrace.workload.arrival import Arrival
from headrace.workload.fleet import Incident
from tests.sim.scenes import HURRIED, OTHER, TEXT, TIGHT, run, scene, streams
from tests.sim.scripted import Stage


def tight(incidents: tuple[Incident, ...] = (), duration_s: float = 30.0) -> Any:
    return scene(TIGHT, streams(1.5, 0.8), model=TEXT, duration_s=duration_s, classes=HURRIED, incidents=incidents)


def same(one: Result, other: Result) -> bool:
    columns = ("first_token_s", "end_s")
    pairs = [(getattr(one.requests, name), getattr(other.requests, name)) for name in columns]
    return all(np.allclose(a, b, rtol=0, atol=1e-6, equal_nan=True) for a, b in pairs)


@pytest.mark.parametrize("policy", ["headrace+oracle", "headrace-plan"])
def test_iterations_taken_together_are_the_same_as_one_by_one(policy: str) -> None:
    together, single = (run(tight(), policy=policy, one_by_one=slow) for slow in (False, True))
    assert same(together, single)
    operations = {name: together.summary()[name] for name in ("evictions", "swaps")}
    assert operations == {name: single.summary()[name] for name in operations}
    assert min(operations.values()) > 0, "else this shows nothing"


@pytest.mark.parametrize(
    ("policy", "evicts", "swaps"),
    [("headrace+oracle", True, True), ("headrace-evict+oracle", False, True), ("headrace-swap", None, False)],
)
def test_what_is_turned_off_does_not_happen(policy: str, evicts: bool | None, swaps: bool) -> None:
    figures = run(tight(), policy=policy).summary()
    assert evicts is None or bool(figures["evictions"]) == evicts
    assert bool(figures["swaps"]) == swaps
    assert figures["swaps"] == figures["loads_cold"] + figures["loads_warm"]
    assert 0 < figures["utilisation"] < 1


incidents = st.builds(
    Incident,
    at_s=st.floats(0.5, 25.0),
    kind=st.sampled_from(["kill", "stop", "drain", "clock", "bus_down", "start"]),
    worker=st.sampled_from(["llm-0", "llm-1"]),
    seconds=st.sampled_from([0.3, 1.5, 4.0]),
)


@settings(max_examples=12, deadline=None)
@given(
    st.lists(incidents, max_size=3),
    st.integers(0, 1000),
    st.sampled_from(["headrace", "headrace+oracle", "headrace-move", "headrace-pull"]),
)
def test_whatever_befalls_the_fleet_every_request_ends_once(befalls: list[Incident], seed: int, policy: str) -> None:
    """The run itself asserts that nothing is held or lost at its end (World.check_quiet)."""
    started = tuple(
        incident if incident.kind != "start" else Incident(incident.at_s, "start", "llm") for incident in befalls
    )
    done = run(tight(started, duration_s=20.0), seed, policy)
    assert (done.requests.reason != REASONS.index("")).all()


def test_a_request_may_have_a_target_of_its_own() -> None:
    """Three come at once and take half a second each to prefill: promises are counted by each one's own."""
    arrivals = [Arrival(0.0, 4_000, 20, slo_class="interactive", model=TEXT, ttft_s=own) for own in (0.0, 0.001, 30.0)]
    one = Run(tight(), "fcfs", 1, arrivals)
    one.go()
    done = one.result(1.0)
    assert done.requests.target_s.tolist() == [1.5, 0.001, 30.0]
    assert done.met().tolist() == [True, False, True]


def test_what_a_request_asks_for_reaches_the_queue_manager() -> None:
    arrival = Arrival(
        1.0, 10, 5, slo_class="batch-1", model=OTHER, tenant="t", ttft_s=2.0, tbt_s=0.1, priority=2, flow="f"
    )
    one = Run(tight(), "headrace", 1, [arrival])
    one.prepare()
    one.world.agenda.run(one.world.now_s + 1.1, lambda: False)
    [asked] = one.world.asked.values()
    request = asked.request
    assert (request.model, request.tenant, request.flow) == (OTHER, "t", "f")
    assert (request.ttft_s, request.tbt_s, request.priority) == (2.0, 0.1, 2)


def test_one_plan_at_a_time_and_of_those_that_wait_the_newest() -> None:
    stage = Stage()
    for version, at_s in ((1, 1.0), (2, 1.05), (3, 1.1), (4, 2.0)):
        stage.at(at_s, stage.tell, fx.SolvePlan(Problem(version, (), ()), 10, 1_000))
    stage.until(4.0)
    assert [(at_s, event.plan.version) for at_s, event in stage.said(PlanSolved)] == [(1.2, 1), (1.4, 3), (2.2, 4)]


def test_it_is_told_how_long_plans_took() -> None:
    planned, unplanned = (run(tight(), policy=policy) for policy in ("shepherd", "edf"))
    assert planned.counters["plans"] > 0, "else this shows nothing"
    assert 0.0 < planned.planner_s < planned.wall_s
    assert unplanned.planner_s == 0.0


def test_a_baselines_plans_are_its_own() -> None:
    one = Run(tight(), "shepherd", 1)
    one.go()
    shown = one.world.core.inspect(one.world.now_s).planner
    assert shown.plans_solved > 0, "else this shows nothing"
    assert shown.last_solver == "shepherd"
    assert shown.solve_s == pytest.approx(one.world.mesh.plan_s * shown.plans_solved)


@pytest.mark.parametrize(
    ("name", "order", "planner", "off"),
    [
        ("edf", "edf", "", ()),
        ("shortest-prompt+random", "shortest-prompt", "", ()),
        ("headrace", "least-slack", "headrace", ()),
        ("headrace-evict", "least-slack", "headrace", ("evict",)),
        ("headrace-plan-swap+blurred:0.5", "least-slack", "headrace", ("solve", "swap")),
        ("vq-fcfs", "fcfs", "fcfs", ()),
        ("vq-edf+oracle", "fcfs", "edf", ()),
        ("shepherd", "fcfs", "shepherd", ()),
    ],
)
def test_names_of_policies(name: str, order: str, planner: str, off: tuple[str, ...]) -> None:
    policy = Policy.of(name)
    assert (policy.order, policy.planner, policy.off) == (order, planner, off)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_can_be_run(name: str) -> None:
    done = run(tight(duration_s=6.0), policy=name)
    assert (done.requests.reason != REASONS.index("")).all()


@pytest.mark.parametrize("name", ["headrace-", "headrace-best", "headraces", "edf-evict", "vq-fcfs-evict", "planner"])
def test_names_of_no_policy(name: str) -> None:
    with pytest.raises(PolicyError, match="headrace-evict"):
        Policy.of(name)
