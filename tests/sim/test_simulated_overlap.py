"""Simulated prefills that begin on a request's first pictures: sooner, nothing else, and nothing lost."""

import numpy as np
import pytest

from headrace.sim.result import Result
from headrace.sim.run import Run
from headrace.workload.arrival import Arrival, Part
from headrace.workload.fleet import Incident, PoolSpec
from tests.sim.scenes import VISION, scene
from tests.sim.test_world import same

MODEL = "internvl-2.5-26b"
ENCODERS = PoolSpec("encode", ("encode",), gpu="a100", tp=1, count=2, start_s=1.0)
APART = (
    ENCODERS,
    PoolSpec("prefill", ("prefill",), gpu="a100", tp=4, count=1, start_s=1.0),
    PoolSpec("decode", ("decode",), gpu="a100", tp=4, count=1, start_s=1.0),
)
TOGETHER = (ENCODERS, PoolSpec("llm", ("prefill", "decode"), gpu="a100", tp=4, count=2, start_s=1.0))


def arrivals(rate_rps: float, images_max: int, seed: int = 1) -> list[Arrival]:
    rng, at_s, made = np.random.default_rng(seed), 0.0, list[Arrival]()
    while (at_s := at_s + float(rng.exponential(1 / rate_rps))) < 20.0:
        parts = tuple(Part("image", 896, 896) for _ in range(int(rng.integers(0, images_max + 1))))
        made.append(Arrival(at_s, int(rng.integers(20, 400)), int(rng.integers(2, 60)), parts, slo_class="interactive"))
    return made


def run(
    pools: tuple[PoolSpec, ...] = APART,
    *,
    overlap: bool = True,
    model: str = MODEL,
    rate_rps: float = 1.0,
    images_max: int = 10,
    policy: str = "headrace",
    incidents: tuple[Incident, ...] = (),
    one_by_one: bool = False,
) -> Result:
    scenario = scene(pools, model=model, incidents=incidents, overlap=float(overlap))
    run = Run(scenario, policy, 1, arrivals(rate_rps, images_max))
    run.world.one_by_one = one_by_one
    run.go()
    return run.result(1.0)


@pytest.mark.parametrize("policy", ["fcfs", "headrace"])
@pytest.mark.parametrize("pools", [APART, TOGETHER], ids=["apart", "together"])
def test_first_tokens_come_sooner_and_nothing_else_changes(pools: tuple[PoolSpec, ...], policy: str) -> None:
    early, late = (run(pools, overlap=overlap, policy=policy) for overlap in (True, False))
    several = late.requests.media_parts >= 2
    assert early.counters["overlaps"] > 0.8 * several.sum()
    assert "overlaps" not in late.counters
    assert early.requests.ttft_s[several].mean() < 0.9 * late.requests.ttft_s[several].mean()
    assert early.requests.ttft_s[~several].mean() <= late.requests.ttft_s[~several].mean()
    assert np.nanmax(early.requests.end_s) <= np.nanmax(late.requests.end_s) + 0.1
    for name in ("output_tokens", "reason", "attempts"):
        assert np.array_equal(getattr(early.requests, name), getattr(late.requests, name)), name


def test_under_more_than_can_be_served_no_throughput_is_lost() -> None:
    early, late = (run(TOGETHER, overlap=overlap, rate_rps=6.0) for overlap in (True, False))
    assert early.requests.finished.all()
    assert late.requests.finished.all()
    assert np.nanmax(early.requests.end_s) <= 1.01 * np.nanmax(late.requests.end_s)


@pytest.mark.parametrize(("model", "images_max"), [(VISION, 10), (MODEL, 1)], ids=["cross-attention", "one image"])
def test_where_nothing_can_begin_early(model: str, images_max: int) -> None:
    early, late = (run(overlap=overlap, model=model, images_max=images_max) for overlap in (True, False))
    assert same(early, late)


@pytest.mark.parametrize("policy", ["headrace-overlap", "headrace"])
def test_a_policy_may_do_without(policy: str) -> None:
    assert ("overlaps" in run(policy=policy).counters) == (policy == "headrace")


def test_iterations_taken_together_are_the_same_as_one_by_one() -> None:
    together, single = (run(TOGETHER, one_by_one=slow) for slow in (False, True))
    assert together.counters["overlaps"] > 0
    for name in ("first_token_s", "end_s"):
        assert np.abs(getattr(together.requests, name) - getattr(single.requests, name)).max() < 1e-6, name


@pytest.mark.parametrize("pools", [APART, TOGETHER], ids=["apart", "together"])
@pytest.mark.parametrize("pool", ["encode", "prefill"])
@pytest.mark.parametrize("kind", ["kill", "stop"])
def test_nothing_is_lost_with_a_worker(pools: tuple[PoolSpec, ...], pool: str, kind: str) -> None:
    """The run itself asserts at its end that nothing is held anywhere."""
    name = pool if pools is APART or pool == "encode" else "llm"
    incidents = tuple(Incident(at_s, kind, name, seconds=3.0) for at_s in (4.0, 9.0, 15.0))  # type: ignore[arg-type]
    done = run(pools, rate_rps=2.0, incidents=incidents)
    assert done.requests.finished.all()
    assert done.counters["overlaps"] > 10
