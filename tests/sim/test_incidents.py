"""What befalls a simulated fleet, and what the policies make of it: told as a table."""

import numpy as np
import pytest

from headrace.core.slo import SloClass
from headrace.sim.result import REASONS, Result
from headrace.sim.run import Run
from headrace.sim.world import START_S
from headrace.workload.fleet import Incident, PoolSpec
from tests.sim.scenes import COLOCATED, SEPARATED, TEXT, mixed, run, scene, text

APART, TOGETHER = SEPARATED[1:], COLOCATED[1:]  # text alone

BUSY = text(20.0)  # requests a second


def at(kind: str, worker: str = "", seconds: float = 0.0, model: str = "") -> Incident:
    return Incident(8.0, kind, worker, seconds, model)  # type: ignore[arg-type]


def tried_again(done: Result) -> int:
    return int((done.requests.attempts > 1).sum())


@pytest.mark.parametrize(
    ("incident", "again", "why"),
    [
        (at("kill", "decode-0"), True, "what it decoded goes on elsewhere"),
        (at("kill", "prefill-0"), True, "what was sent to it before anybody knew"),
        (at("stop", "decode-0", 1.0), False, "shorter than its lease: nobody noticed"),
        (at("stop", "decode-0", 6.0), True, "longer than its lease: it counted as dead, and its words as old ones"),
        (at("drain", "decode-0"), False, "it finishes what it has"),
        (at("bus_down", seconds=4.0), False, "an outage is never read as expired leases"),
        (at("clock", "decode-0", -5.0), False, "clocks that differ decide nothing"),
        (at("clock", "decode-0", 5.0), False, "in either direction"),
        (at("start", "decode"), False, "one more serves"),
    ],
)
def test_incidents(incident: Incident, again: bool, why: str) -> None:
    done = run(scene(APART, BUSY, model=TEXT, incidents=(incident,)))
    refused = int(done.counters.get("refused_without_a_bus", 0))
    assert bool(refused) == (incident.kind == "bus_down")
    assert done.requests.finished.sum() == len(done.requests) - refused, why
    assert bool(tried_again(done)) == again, why


@pytest.mark.parametrize("worker", ["decode-0", "decode-1"])
def test_who_drains_waits_for_what_is_being_prefilled_for_it(worker: str) -> None:
    """It holds nothing of a request that will be handed over to it."""
    seldom = text(0.3)
    first = run(scene(APART, seldom, model=TEXT)).requests
    amid_s = float(first.dispatch_s[0] + first.first_token_s[0]) / 2
    done = run(scene(APART, seldom, model=TEXT, incidents=(Incident(amid_s, "drain", worker),)))
    assert done.requests.finished.all()
    assert not tried_again(done)


def test_a_dead_worker_is_noticed_within_three_seconds() -> None:
    killed = Run(scene(APART, BUSY, model=TEXT, incidents=(at("kill", "decode-0"),)), "fcfs", 1)
    killed.prepare()
    known = []
    for moment_s in (8.5, 11.0):
        killed.world.agenda.run(START_S + moment_s, lambda: False)
        known.append({worker.worker for worker in killed.world.core.view(killed.world.now_s).workers})
    assert known[0] - known[1] == {"decode-0"}


def test_what_a_dead_worker_held_goes_on_at_once() -> None:
    """Within the lease and what a prefill takes; not one after the other."""
    done = run(scene(APART, BUSY, model=TEXT, incidents=(at("kill", "decode-0"),)))
    retried_s = done.requests.dispatch_s[done.requests.attempts > 1]
    assert len(retried_s) > 10
    assert 8.0 < retried_s.min() <= retried_s.max() < 8.0 + 3.0 + 0.5


def test_what_was_said_is_not_said_again() -> None:
    """An answer that was half given goes on where it stopped: as long as without the death, later."""
    quiet = run(scene(APART, BUSY, model=TEXT))
    died = run(scene(APART, BUSY, model=TEXT, incidents=(at("kill", "decode-0"),)))
    assert np.array_equal(quiet.requests.output_tokens, died.requests.output_tokens)
    again = (died.requests.attempts > 1) & (died.requests.first_token_s < 8.0)
    assert again.any()
    assert np.array_equal(quiet.requests.first_token_s[again], died.requests.first_token_s[again])
    assert (died.requests.end_s[again] > quiet.requests.end_s[again] + 1.0).all()


def test_a_worker_comes_back_after_its_death() -> None:
    done = run(scene(COLOCATED, mixed(), duration_s=60, incidents=(Incident(5.0, "kill", "encode-0"),)))
    up = done.pools[0].instances
    assert up.min() == 1
    assert up[-1] == 2


def test_a_model_is_swapped() -> None:
    pools = (PoolSpec("llm", ("prefill", "decode"), gpu="a100", tp=4, count=2, start_s=3.0),)
    swap = at("swap", "llm-1", model="mistral-7b")
    done = run(scene(pools, text(), model=TEXT, incidents=(swap,), duration_s=30))
    assert done.counters["swap"] == 1
    assert done.requests.finished.all(), "the other one serves on"
    assert done.pools[0].instances.min() == 1


def test_deadlines_are_kept() -> None:
    hurried = (SloClass("interactive", 0.5, 1.0, 4096),)
    done = run(scene(TOGETHER, text(), model="llama-2-70b", classes=hurried))
    late = done.requests.reason == REASONS.index("deadline")
    assert late.any()
    lived_s = done.requests.end_s - done.requests.arrival_s
    assert lived_s[late].max() < 1.0 + 0.6
