"""The simulated world: repeatable, nothing lost or said twice, and right where arithmetic knows the answer."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.cost import Curve, Power, StepCost
from headrace.core.slo import SloClass
from headrace.sim.policy import PolicyError
from headrace.sim.result import REASONS, Result
from headrace.sim.run import Run, simulate
from headrace.workload.arrival import Arrival
from headrace.workload.fleet import Incident, PoolSpec
from headrace.workload.scenario import Scenario
from tests.sim.scenes import FLEETS, LLAVA, SEPARATED, TEXT, VISION, mixed, run, scene, text

COLUMNS = ("arrival_s", "ready_s", "dispatch_s", "first_token_s", "end_s", "output_tokens", "reason", "attempts")


def same(one: Result, other: Result) -> bool:
    return all(
        np.array_equal(getattr(one.requests, name), getattr(other.requests, name), equal_nan=True) for name in COLUMNS
    )


def test_the_same_seed_is_the_same_run() -> None:
    assert same(run(scene()), run(scene()))
    assert not same(run(scene()), run(scene(), seed=2))


@pytest.mark.parametrize("fleet", FLEETS)
@pytest.mark.parametrize("model", [VISION, LLAVA])
def test_every_answer_is_whole(fleet: str, model: str) -> None:
    scenario = scene(FLEETS[fleet], model=model)
    done = run(scenario)
    arrivals = list(scenario.arrivals(1))
    assert len(done.requests) == len(arrivals) > 50
    served = done.requests.finished
    assert (~served).sum() == done.counters.get("too_long_for_the_context", 0)
    assert served.mean() > 0.9
    said = np.array([arrival.output_tokens for arrival in arrivals])
    assert (done.requests.output_tokens == np.where(served, said, 0)).all()
    assert done.requests.media_parts.tolist() == [len(arrival.parts) for arrival in arrivals]
    assert (done.requests.attempts == served).all()


def test_a_request_goes_through_its_stages_in_order() -> None:
    requests = run(scene()).requests
    assert (requests.arrival_s <= requests.ready_s).all()
    assert (requests.ready_s <= requests.dispatch_s).all()
    assert (requests.dispatch_s < requests.first_token_s).all()
    assert (requests.first_token_s <= requests.end_s).all()
    media = requests.media_parts > 0
    waited_s = requests.ready_s - requests.arrival_s
    assert waited_s[media].min() > 10 * waited_s[~media].max(), "text waits for no encoder"


@pytest.mark.parametrize("fleet", FLEETS)
def test_iterations_taken_together_are_the_same_as_one_by_one(fleet: str) -> None:
    together, single = (run(scene(FLEETS[fleet]), one_by_one=slow) for slow in (False, True))
    for name in ("first_token_s", "end_s"):
        one, other = getattr(together.requests, name), getattr(single.requests, name)
        assert np.abs(one - other).max() < 1e-6, name
    assert together.tbt.counts.sum() == single.tbt.counts.sum()
    assert together.tbt.percentile(0.99) == pytest.approx(single.tbt.percentile(0.99), rel=0.03)
    assert together.joules == pytest.approx(single.joules, rel=1e-6)


def test_every_gap_between_tokens_is_counted() -> None:
    done = run(scene())
    assert done.tbt.counts.sum() == (done.requests.output_tokens - 1).sum()


incidents = st.builds(
    Incident,
    at_s=st.floats(0.5, 15.0),
    kind=st.sampled_from(["kill", "stop", "drain", "clock", "bus_down", "start"]),
    worker=st.sampled_from(["encode-0", "prefill-0", "prefill-1", "decode-0", "decode-1"]),
    seconds=st.sampled_from([0.3, 1.5, 4.0]),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(incidents, max_size=4), st.integers(0, 1000), st.sampled_from(["fcfs", "edf", "shortest-prompt"]))
def test_whatever_befalls_the_fleet_every_request_ends_once(befalls: list[Incident], seed: int, policy: str) -> None:
    """The run itself asserts that nothing is held or lost at its end (World.check_quiet)."""
    started = tuple(
        incident if incident.kind != "start" else Incident(incident.at_s, "start", "prefill") for incident in befalls
    )
    short = (SloClass("interactive", 5.0, 20.0, 4096),)
    done = run(scene(incidents=started, classes=short, duration_s=15.0), seed, policy)
    assert (done.requests.reason != REASONS.index("")).all()
    assert done.requests.attempts.max() <= 12


def test_one_server_and_one_queue_wait_as_the_formula_says() -> None:
    """M/D/1: mean wait = rho D / (2 (1 - rho)) (Pollaczek and Khinchine)."""
    service_s, rho = 0.1, 0.7
    waits_s = single_server(service_s, rho / service_s, 12_000)
    assert waits_s.mean() == pytest.approx(rho * service_s / (2 * (1 - rho)), rel=0.06)


def single_server(service_s: float, rate_rps: float, count: int) -> np.ndarray:
    """Waits of requests of one token each at one worker that takes one at a time, in a mesh that costs nothing."""
    free: Any = dict.fromkeys(("admit_s", "queue_s", "event_s", "command_s", "deliver_s", "handover_s"), 0.0)
    pool = PoolSpec("llm", ("prefill", "decode"), profile="zero", count=1, slots=1)
    huge = (SloClass("interactive", 1e6, 1e6, 1 << 20),)
    scenario = scene((pool,), text(), model=TEXT, duration_s=count / rate_rps + 100, classes=huge, **free)
    rng = np.random.default_rng(7)
    times_s = np.cumsum(rng.exponential(1 / rate_rps, count))
    arrivals = [Arrival(float(at_s), 10, 1, slo_class="interactive", model=TEXT) for at_s in times_s]
    one = Run(scenario, "fcfs", 1, arrivals)
    kind = one.kinds["llm"]
    cost = StepCost(Curve((0.0,), (service_s,)))
    for name in ("step", "power"):
        object.__setattr__(kind, name, {"step": cost, "power": Power()}[name])
    one.world.workers["llm-0"].llm._cost = cost  # type: ignore[union-attr]
    one.go()
    requests = one.result(1.0).requests
    assert len(requests) == count
    return requests.end_s - requests.arrival_s - service_s


def test_room_is_bounded_by_kv_blocks() -> None:
    """Vicuna's KV takes 819 kB a token: on one A100 few sequences fit, and the others wait in the queue manager."""
    pools = (PoolSpec("llm", ("prefill", "decode"), gpu="a100", tp=1, count=1),)
    done = run(scene(pools, text(6.0), model="vicuna-13b", duration_s=30))
    pool = done.pools[0]
    assert 0.9 < pool.kv_share.max() <= 1.0
    assert pool.running.max() < 128
    assert done.waiting["interactive"].max() > 0


@pytest.mark.parametrize(("link", "least_s", "most_s"), [("nvlink", 0.0, 0.01), ("ethernet", 0.02, 10.0)])
def test_a_hand_over_takes_what_its_link_takes(link: str, least_s: float, most_s: float) -> None:
    """An embedding of 6,404 rows of 15 kB crosses Ethernet in 0.08 s and more, NVLink in under a millisecond."""
    slow, fast = (run(scene(link=name, workload=mixed(0.5), duration_s=40)) for name in (link, "nvlink"))
    media = slow.requests.media_parts > 0
    more_s = np.median(slow.requests.ttft_s[media]) - np.median(fast.requests.ttft_s[media])
    assert least_s <= more_s <= most_s


def test_watts_lie_between_idle_and_full() -> None:
    done = run(scene())
    hours = done.gpu_hours
    assert 80.0 * hours * 3600 < done.joules < 400.0 * hours * 3600
    for pool in done.pools:
        assert (pool.power_w <= 400.0 * pool.gpus_each * pool.instances.max() + 1).all()
        assert (pool.busy_share <= 1 + 1e-9).all()


@pytest.mark.parametrize(
    ("scenario", "policy", "error", "why"),
    [
        (scene(), "best", PolicyError, "fcfs"),
        (scene(), "ssjf+seer", PolicyError, "oracle"),
        (scene(), "ssjf+blurred:2", PolicyError, "blurred"),
        (scene(admit=1.0), "fcfs", ValueError, "admit_s"),
    ],
)
def test_what_cannot_be_run_says_why(scenario: Scenario, policy: str, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        simulate(scenario, policy)


def test_a_scenario_without_a_fleet_is_for_live_meshes() -> None:
    from dataclasses import replace

    with pytest.raises(ValueError, match="fleet"):
        simulate(replace(scene(SEPARATED), fleet=None), "fcfs")
