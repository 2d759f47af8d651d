"""A simulated fleet that is scaled while it runs: nothing is lost, limits hold, and what it saves and costs."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headrace.sim.result import Result
from headrace.sim.run import Run
from headrace.sim.world import START_S
from headrace.workload.autoscale import Autoscale, PoolLimits
from headrace.workload.fleet import Incident, PoolSpec
from headrace.workload.multimodal import Multimodal
from headrace.workload.open import Burst, Generated, Streams
from headrace.workload.scenario import Scenario
from headrace.workload.tables import ScenarioError
from tests.sim.scenes import HURRIED, TEXT, TIGHT, run, scene, streams, text
from tests.sim.test_world import same

# Text all the time, and pictures for three minutes: as many as five encoders can take.
BURSTY = Generated(
    Multimodal(rate_rps=1.0, image_share=0.0, profile="flat", bursty=False), (Burst(150.0, 180.0, 3.0, 1.0),)
)
PEAK = (
    PoolSpec("encode", ("encode",), gpu="a100", tp=1, count=8, start_s=15.0),
    PoolSpec("llm", ("prefill", "decode"), gpu="a100", tp=4, count=2, start_s=40.0),
)
POLICIES = ("published", "headrace")


def elastic(policy: str, encoders: int = 0, **changes: Any) -> Scenario:
    pools = {"encode": PoolLimits(min=encoders, max=12), "llm": PoolLimits(min=1)}
    asked = Autoscale(policy, epoch_s=120.0, gpus_max=20, pools=pools)
    return replace(scene(PEAK, BURSTY, duration_s=700.0), autoscale=replace(asked, **changes))


@pytest.fixture(scope="module")
def runs() -> dict[str, Result]:
    fixed = run(replace(elastic("headrace"), autoscale=None))
    return {"fixed": fixed, **{policy: run(elastic(policy)) for policy in POLICIES}}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_fleet_that_is_scaled_loses_nothing(runs: dict[str, Result], policy: str) -> None:
    """Run.go has held the world to its invariants when it was quiet."""
    done = runs[policy]
    assert done.requests.finished.all()
    assert np.array_equal(done.requests.output_tokens, runs["fixed"].requests.output_tokens)
    assert (done.requests.attempts == 1).all(), "a drain sends nobody away"
    assert done.counters["instances_started"] >= 4
    assert done.counters["instances_drained"] >= 4


def test_ours_keeps_more_promises_than_the_published_one_and_both_save(runs: dict[str, Result]) -> None:
    fixed, published, ours = (runs[name] for name in ("fixed", *POLICIES))
    assert fixed.met().mean() > 0.99
    assert ours.gpu_hours < 0.75 * fixed.gpu_hours
    assert published.gpu_hours < 0.75 * fixed.gpu_hours
    assert published.met().mean() + 0.03 < ours.met().mean() < fixed.met().mean()


@pytest.mark.parametrize("policy", POLICIES)
def test_gpus_are_never_more_than_there_are(runs: dict[str, Result], policy: str) -> None:
    done = runs[policy]
    gpus = np.sum([pool.instances * pool.gpus_each for pool in done.pools], axis=0)
    assert gpus.max() <= 20
    instances = {pool.name: pool.instances for pool in done.pools}
    assert instances["encode"].min() == 0, "nobody sends pictures before the burst"
    assert instances["llm"].min() == 1
    assert instances["encode"].max() > 4


def test_decisions_are_told_with_their_reasons(runs: dict[str, Result]) -> None:
    done = runs["headrace"]
    assert len(done.scalings) == done.counters["scalings"] == done.summary()["scalings"]
    assert all(each.reason and each.instances != each.instances_before for each in done.scalings)
    (woken, *_) = [each for each in done.scalings if each.pool == "encode" and each.instances_before == 0]
    assert 150.0 < woken.t_s < 153.0, "the first picture is not left until the next look"
    assert not runs["fixed"].scalings


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_is_scaled_the_same_way(policy: str) -> None:
    short = replace(elastic(policy), duration_s=250.0)
    one, other = run(short), run(short)
    assert same(one, other)
    assert one.scalings == other.scalings


def test_starting_instances_cost_gpu_hours() -> None:
    slow = (replace(PEAK[0], count=1, start_s=1000.0), PEAK[1])
    asked = Autoscale("headrace", gpus_max=20, pools={"encode": PoolLimits(max=12), "llm": PoolLimits(min=2, max=2)})
    done = run(replace(scene(slow, BURSTY, duration_s=300.0, drain_s=60.0), autoscale=asked))
    up = sum(pool.instances.mean() * pool.gpus_each for pool in done.pools) * done.duration_s / 3600
    assert done.counters["instances_started"] > 0
    assert done.pools[0].instances.max() == 1, "none of them came to serve"
    assert done.gpu_hours > 1.05 * up


def test_nothing_is_lost_when_workers_die_meanwhile() -> None:
    incidents = (
        Incident(100.0, "kill", "llm-0"),
        Incident(170.0, "kill", "encode-8"),
        Incident(200.0, "bus_down", seconds=4.0),
        Incident(220.0, "start", "encode"),
        Incident(230.0, "drain", "encode-9"),
    )
    done = run(replace(elastic("headrace"), incidents=incidents))
    refused = int(done.counters.get("refused_without_a_bus", 0))
    assert done.requests.finished.sum() == len(done.requests) - refused


@pytest.mark.parametrize("scaler", POLICIES)
def test_workers_that_load_models_are_scaled_too(scaler: str) -> None:
    """Two models, virtual queues, evictions: a worker that is drained has its groups taken over."""
    asked = Autoscale(scaler, epoch_s=90.0, gpus_max=5)
    usual = streams(1.0, 0.8)
    chat, *others = usual.streams
    assert isinstance(chat.source, Generated)
    more = replace(chat, source=replace(chat.source, bursts=(Burst(60.0, 60.0, 4.0, 0.0),)))
    tight = scene(TIGHT, Streams((more, *others)), model=TEXT, duration_s=400.0, classes=HURRIED)
    done = run(replace(tight, autoscale=asked), policy="headrace")
    for what in ("instances_started", "instances_drained", "swaps", "evictions"):
        assert done.counters[what] > 1, what
    assert done.requests.finished.all()


def test_an_emptied_fleet_comes_back() -> None:
    """Everything may go: two requests, with silence between them."""
    pools = (PoolSpec("llm", ("prefill", "decode"), gpu="a100", count=1, start_s=10.0),)
    asked = Autoscale("headrace", pools={"llm": PoolLimits(min=0)})
    quiet = replace(scene(pools, text(), model=TEXT, duration_s=1200.0), autoscale=asked)
    first = next(iter(quiet.arrivals()))
    given = [replace(first, at_s=at_s) for at_s in (1.0, 1002.5)]
    done = Run(quiet, "fcfs", 1, given)
    done.go()
    result = done.result(1.0)
    assert result.requests.finished.all()
    assert result.pools[0].instances.min() == 0
    assert 10.0 < result.requests.ttft_s[1] < 11.1, "a start, and a second at most until it is ordered"


def test_what_drains_is_counted_until_it_has_left() -> None:
    made = Run(elastic("published", epoch_s=100.0), "fcfs", 1)
    made.prepare()
    made.world.agenda.run(START_S + 130.0, lambda: False)
    alive = [worker for worker in made.world.workers.values() if worker.alive]
    assert sorted(worker.id.partition("-")[0] for worker in alive) == ["llm"]


def test_who_is_drained_ends_what_it_has() -> None:
    busy = replace(scene(PEAK[1:], text(20.0), model=TEXT), autoscale=Autoscale("published"))
    made = Run(busy, "fcfs", 1)
    made.world.agenda.after(8.0, made.turnover.drain, "llm-0")
    made.go()
    done = made.result(1.0)
    assert done.pools[0].instances[-1] == 1
    assert done.requests.finished.all()
    assert (done.requests.attempts == 1).all()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"pools": {"tower": PoolLimits()}}, "there is no pool 'tower'; there are encode, llm"),
        ({"pools": {"encode": PoolLimits(min=3, max=2)}}, r"max \(2\) must be at least min \(3\)"),
        ({"gpus_max": 10}, "the fleet begins with 16 GPUs, there are 10"),
        ({"gpus_max": 16, "pools": {"llm": PoolLimits(min=4)}}, "the pools' min take 17 GPUs, there are 16"),
    ],
)
def test_limits_that_cannot_be_kept_are_told(asked: dict[str, Any], says: str) -> None:
    fleet = scene(PEAK).fleet
    assert fleet is not None
    with pytest.raises(ValueError, match=says):
        Autoscale(**asked).check(fleet)


def test_a_policy_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="policy: there is no 'best'; allowed: published, headrace"):
        Autoscale("best")


def test_a_pool_of_no_known_capacity_has_to_say_it() -> None:
    pools = (PoolSpec("encode", ("encode",), profile="instant"), PoolSpec("llm", ("prefill", "decode"), gpu="a100"))
    with pytest.raises(ScenarioError, match=r"autoscale.pools.encode\] capacity: is missing"):
        Run(replace(scene(pools), autoscale=Autoscale()), "fcfs", 1)
