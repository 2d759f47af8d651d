"""Workers whose speed changes in time: iterations under way are stretched, and the queue manager hears of it."""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headrace.core.cost import Power
from headrace.core.governing import FULL, Governance, Speeds
from headrace.sim.governor import SpeedChange
from headrace.sim.meter import EXPONENT, Meter
from headrace.sim.result import Result
from headrace.sim.run import Run, simulate
from headrace.workload.arrival import Arrival, Part
from headrace.workload.fleet import Incident, PoolSpec
from tests.parity.replaying import replayed
from tests.parity.test_simulated_tape import read, recorded
from tests.sim.scenes import COLOCATED, FLEETS, HURRIED, LLAVA, TEXT, TIGHT, mixed, scene, streams

LLM = PoolSpec("llm", ("prefill", "decode"), gpu="a100", count=1)


def cap(at_s: float, pool: str, seconds: float = 0.0, **speeds: float) -> Incident:
    return Incident(at_s, "cap", pool, seconds, **speeds)  # type: ignore[arg-type]


def up_and_down(pools: tuple[PoolSpec, ...], seed: int, until_s: float) -> Iterator[SpeedChange]:
    """Every worker now and then, in order of time, several times within an iteration too."""
    draw = random.Random(seed)
    names = [f"{pool.name}-{number}" for pool in pools for number in range(pool.count)]
    at_s = 0.0
    while (at_s := at_s + draw.choice((0.001, 0.02, 0.3))) < until_s:
        speeds = Speeds(*(draw.choice((0.35, 0.6, 1.0)) for _ in range(3)))
        yield SpeedChange(at_s, Governance(draw.choice(names), speeds=speeds))


def changing(scenario: Any, seed: int, policy: str, *, one_by_one: bool) -> Result:
    run = Run(scenario, policy, 1, speeds=up_and_down(scenario.fleet.pools, seed, 30.0))
    run.world.one_by_one = one_by_one
    run.go()
    return run.result(1.0)


TIGHT_SCENE = scene(TIGHT, streams(1.5, 0.8), model=TEXT, duration_s=20.0, classes=HURRIED, coupling=0.0)
SCENES = {name: scene(pools, mixed(3.0), duration_s=10.0, coupling=0.0) for name, pools in FLEETS.items()}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("scenario", "policy"), [*((each, "fcfs") for each in SCENES.values()), (TIGHT_SCENE, "headrace+oracle")]
)
def test_stretches_that_change_their_speed_are_the_same_as_one_by_one(scenario: Any, policy: str, seed: int) -> None:
    """Without the coupling: heartbeats, and what is learnt of them, tell of a running stretch what they can."""
    together, single = (changing(scenario, seed, policy, one_by_one=slow) for slow in (False, True))
    for name in ("first_token_s", "end_s"):
        one, other = getattr(together.requests, name), getattr(single.requests, name)
        assert np.allclose(one, other, rtol=0, atol=1e-6, equal_nan=True), name
    assert together.tbt.counts.sum() == single.tbt.counts.sum()
    assert together.joules == pytest.approx(single.joules, rel=1e-6)


# --- what a speed does ---


def asked(count: int, prompt: int, output: int, **changes: Any) -> list[Arrival]:
    return [Arrival(0.001 * n, prompt, output, slo_class="interactive", model=TEXT, **changes) for n in range(count)]


def took_s(arrivals: list[Arrival], *incidents: Incident) -> float:
    done = simulate(scene((LLM,), model=TEXT, incidents=incidents), "fcfs", 1, arrivals=arrivals)
    assert done.requests.finished.all()
    return float(done.requests.end_s.max())


@pytest.mark.parametrize(("speed", "times"), [(0.5, 2.0), (0.8, 1.25)])
def test_a_cap_on_saturated_prefill_takes_as_much_of_its_throughput(speed: float, times: float) -> None:
    prompts = asked(60, 4000, 1)
    assert took_s(prompts, cap(0.0, "llm", prefill=speed)) == pytest.approx(times * took_s(prompts), rel=0.01)
    assert took_s(prompts, cap(0.0, "llm", decode=speed)) == pytest.approx(took_s(prompts), rel=0.01)


def test_a_cap_on_decoding_stretches_decoding_alone() -> None:
    answers = asked(8, 10, 800)
    assert took_s(answers, cap(0.0, "llm", decode=0.5)) == pytest.approx(2 * took_s(answers), rel=0.02)
    assert took_s(answers, cap(0.0, "llm", prefill=0.5)) == pytest.approx(took_s(answers), rel=0.02)


def test_a_cap_on_encoders_leaves_reading_as_it_is() -> None:
    pool = PoolSpec("encode", ("encode",), gpu="a100", count=1)
    pictures = asked(40, 10, 1, parts=(Part("image", 1200, 1200),))
    pictures = [replace(each, model=LLAVA) for each in pictures]
    ready_s = []
    for caps in ((), (cap(0.0, "encode", encode=0.5),)):
        done = simulate(scene((pool, LLM), model=LLAVA, incidents=caps), "fcfs", 1, arrivals=pictures)
        ready_s.append(float(done.requests.ready_s[10]))  # before embeddings that wait for prefill hold encoders up
    assert 1.2 < ready_s[1] / ready_s[0] < 1.9


def test_from_the_middle_of_an_iteration_on_what_is_left_takes_longer() -> None:
    """One prompt in one iteration of t seconds, its speed halved after a third of it: t / 3 + 2 x 2 t / 3."""
    prompt = asked(1, 2000, 1)
    plain = simulate(scene((LLM,), model=TEXT), "fcfs", 1, arrivals=prompt).requests
    began_s, whole_s = float(plain.dispatch_s[0]), float(plain.end_s[0] - plain.dispatch_s[0])
    capped = simulate(
        scene((LLM,), model=TEXT, incidents=(cap(began_s + whole_s / 3, "llm", prefill=0.5),)),
        "fcfs",
        1,
        arrivals=prompt,
    ).requests
    assert capped.end_s[0] - began_s == pytest.approx(whole_s * (1 / 3 + 4 / 3), rel=0.02)


def test_a_cap_of_a_pool_is_of_all_its_workers_for_as_long_as_it_lasts() -> None:
    caps = (cap(1.0, "llm", seconds=3.0, prefill=0.5), cap(2.0, "llm-1", decode=0.7), Incident(2.5, "start", "llm"))
    run = Run(scene(COLOCATED, mixed(), incidents=caps), "fcfs", 1)
    run.prepare()
    seen = []
    for at_s in (1.5, 3.5, 3.9, 5.0):
        run.world.agenda.run(1_000_000.0 + at_s, lambda: False)
        seen.append([run.world.workers[f"llm-{number}"].speeds for number in range(2)])
    half, decode = Speeds(prefill=0.5), Speeds(decode=0.7)
    assert seen == [[half, half], [half, decode], [half, decode], [FULL, FULL]]


def test_watts_fall_with_the_power_law() -> None:
    meter = Meter(Power(50.0, 100.0, 400.0, 250.0, 400.0), 2)
    meter.up(0.0)
    meter.work(0.0, 400.0)
    meter.run_at(10.0, 0.5)
    meter.rest(20.0)
    dynamic_w = 2 * 300.0
    assert meter.joules(20.0) == pytest.approx(20.0 * 2 * 100.0 + 10.0 * dynamic_w * (1 + 0.5**EXPONENT))
    assert meter.busy_s(20.0) == 20.0


# --- what the queue manager hears ---


@pytest.mark.parametrize("coupling", [0.0, 1.0])
def test_the_governors_word_is_on_the_tape_and_it_replays(coupling: float) -> None:
    caps = (cap(2.0, "llm", prefill=0.4, decode=0.8), cap(4.0, "llm-0", seconds=3.0, decode=0.5))
    befalls = (*caps, Incident(5.0, "kill", "llm-1"), Incident(7.0, "bus_down", seconds=1.0))
    scenario = scene(
        TIGHT,
        streams(1.5, 0.8),
        model=TEXT,
        duration_s=12.0,
        classes=HURRIED,
        incidents=befalls,
        coupling=coupling,
    )
    tape = recorded(Run(scenario, "headrace+oracle", 1))
    config, frames = read(tape)
    words = [frame for frame in frames if type(frame.event).__name__ == "Governed"]
    assert (len(words) > 5) == bool(coupling)
    core, differing = replayed(config, frames)
    assert differing == []
    assert core.inspect(0.0) == tape.core.inspect(0.0)
    deaf = [frame for frame in frames if frame not in words]
    assert (replayed(config, deaf)[1] != []) == bool(coupling), "what it heard changed what it did"


def test_told_of_a_cap_the_queue_sends_work_where_it_is_done_soonest() -> None:
    """Of four workers one falls to a quarter of its speed, and half a minute later rises again."""
    pools = (replace(LLM, count=4, slots=8),)
    caps = (cap(20.0, "llm-0", seconds=30.0, prefill=0.25, decode=0.25),)
    late = {}
    for coupling in (0.0, 1.0):
        scenario = scene(
            pools,
            streams(11.0, 0.0001),
            model=TEXT,
            duration_s=60.0,
            incidents=caps,
            classes=HURRIED,
            coupling=coupling,
        )
        done = simulate(scenario, "headrace", 1)
        late[coupling] = float(np.nanmean(done.requests.ttft_s[done.requests.arrival_s > 20.0]))
    assert late[1.0] < 0.95 * late[0.0], late


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"worker": ""}, "worker: is missing"),
        ({"prefill": 0.0}, "prefill: must be above 0"),
        ({"decode": 1.2}, "decode: must be above 0 and at most 1"),
        ({}, "needs a speed below 1"),
    ],
)
def test_a_cap_that_says_nothing_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Incident(**{"at_s": 1.0, "kind": "cap", "worker": "llm", **changes})
