"""Roles that follow the load, in the simulated world: hand-overs, deaths and drains included."""

from dataclasses import replace

import numpy as np
import pytest

from headrace.core.slo import SloClass
from headrace.sim.result import Result
from headrace.workload.fleet import Incident, PoolSpec
from headrace.workload.multimodal import TextOnly
from headrace.workload.open import Generated, Stream, Streams
from headrace.workload.quantiles import Quantiles
from headrace.workload.scenario import Scenario
from tests.sim.scenes import TEXT, run, scene

FLEET = (PoolSpec("llm", ("prefill", "decode"), gpu="a100", count=3, slots=24, start_s=2.0),)
EVEN = (0.0, 1.0)


def shifting(roles: str = "elastic", incidents: tuple[Incident, ...] = ()) -> Scenario:
    """Twenty seconds of long prompts, then forty of long answers."""
    prompts = Generated(TextOnly("sharegpt", 3.5), input_tokens=_about(5000), output_tokens=_about(40))
    answers = Generated(TextOnly("sharegpt", 3.0), input_tokens=_about(100), output_tokens=_about(600))
    streams = Streams((Stream("prompts", prompts, seconds=20.0), Stream("answers", answers, from_s=20.0)))
    soon = (SloClass("interactive", ttft_s=3.0, timeout_s=300.0, queue_limit=4096, tbt_s=0.05),)
    made = scene(FLEET, streams, model=TEXT, duration_s=60.0, incidents=incidents, classes=soon)
    assert made.fleet is not None
    return replace(made, fleet=replace(made.fleet, roles=roles))  # type: ignore[arg-type]


def _about(tokens: int) -> Quantiles:
    return Quantiles(EVEN, (0.8 * tokens, 1.2 * tokens))


def changes(result: Result) -> float:
    return result.counters["role_changes"]


def between_s(result: Result) -> float:
    """Between two tokens, of nine in ten that come with long prompts."""
    requests = result.requests
    return float(np.nanquantile(requests.tbt_s[requests.arrival_s < 20.0], 0.9))


def test_roles_follow_the_load_and_prompts_hold_up_no_answers() -> None:
    elastic, fixed = run(shifting()), run(shifting("fixed"))
    assert changes(elastic) >= 2
    assert changes(fixed) == 0
    for each in (elastic, fixed):
        assert each.requests.finished.all()
    assert elastic.counters["transferred_bytes"] > 0, "KV caches are handed over"
    assert fixed.counters["transferred_bytes"] == 0
    assert between_s(elastic) < 0.7 * between_s(fixed)


@pytest.mark.parametrize("policy", ["fcfs", "headrace"])
def test_iterations_taken_together_are_the_same_as_one_by_one(policy: str) -> None:
    together, single = (run(shifting(), policy=policy, one_by_one=slow) for slow in (False, True))
    assert changes(together) == changes(single) > 0
    assert np.allclose(together.requests.end_s, single.requests.end_s, rtol=0, atol=1e-6)


@pytest.mark.parametrize("policy", ["fcfs", "headrace"])
@pytest.mark.parametrize("kind", ["kill", "drain", "stop"])
def test_whatever_befalls_the_workers_every_request_ends_once(policy: str, kind: str) -> None:
    """The run itself asserts that nothing is held or lost at its end (World.check_quiet)."""
    befalls = [
        Incident(at_s, kind, worker, seconds=3.0)  # type: ignore[arg-type]
        for at_s, worker in ((8.0, "llm-0"), (26.0, "llm-1"))
    ]
    back = [Incident(at_s + 6.0, "start", "llm") for at_s in (8.0, 26.0)] if kind in ("kill", "drain") else []
    result = run(shifting(incidents=tuple(sorted([*befalls, *back], key=lambda each: each.at_s))), policy=policy)
    assert result.requests.finished.all()
