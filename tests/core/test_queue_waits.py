"""Waits in the queue manager: what is told of them, and what is given back because of them."""

from dataclasses import replace

import pytest

from headrace.core import events as ev
from headrace.core.queue.waits import passing
from headrace.core.waiting.overtaking import MEMORY_S
from tests.core.grouped_world import URGENT, config, operations, world_of
from tests.core.queue_world import World


def test_a_request_that_waits_too_long_is_given_back() -> None:
    classes = {"interactive": replace(URGENT, ttl_s=3.0)}
    world = world_of(slots=1, classes=classes, evict=False)
    world.submit(max_tokens=40)
    world.pass_time(1.0)
    late = world.submit(max_tokens=2)
    world.pass_time(4.0)
    end = world.gateway.ends[late]
    assert end.failure is not None
    assert end.failure.code == "ttl_expired"
    assert end.failure.retry_after_s > 0
    assert operations(world)["expire"] == 1
    world.calm()


def test_what_cannot_begin_in_time_is_refused_at_once() -> None:
    world = world_of(slots=1, planner="fcfs")
    for _ in range(20):
        world.submit(max_tokens=100)
    world.pass_time(2.0)
    hopeless = world.submit(max_tokens=100, slo_class="batch-2", deadline_s=world.now_s + 5.0)
    world.pass_time(1.0)
    end = world.gateway.ends[hopeless]
    assert end.failure is not None
    assert end.failure.code == "deadline_unreachable"
    for number in range(world.seq):
        world.send(ev.Cancel(f"{number + 1:032x}", "gw"))
    world.calm()


def test_a_request_whose_length_is_predicted_late_is_refused_once() -> None:
    """It joins a group twice between two ticks: once without a prediction, once with it."""
    world = world_of(slots=1, planner="fcfs", predict_lengths=True)
    for _ in range(20):
        world.submit(max_tokens=100)
    world.pass_time(2.0)
    hopeless = world.submit(max_tokens=100, slo_class="batch-2", deadline_s=world.now_s + 5.0)
    world.deliver_all()
    world.handle(ev.Tick())
    world.pass_time(0.5)
    assert operations(world)["reject"] == 1
    assert hopeless in world.gateway.ends
    for number in range(world.seq):
        world.send(ev.Cancel(f"{number + 1:032x}", "gw"))
    world.calm()


def test_explain_says_group_queue_wait_and_length() -> None:
    world = world_of(slots=1, evict=False)
    world.submit(max_tokens=40)
    world.pass_time(1.0)
    ids = [world.submit(max_tokens=4, slo_class="batch-2") for _ in range(3)]
    world.pass_time(1.0)
    explained = world.core.explain(ids[2], world.now_s)
    assert explained.position == 2
    assert explained.virtual_queue == "w0"
    assert explained.group > 0
    assert explained.estimated_wait_bound_s >= explained.estimated_wait_s > 0
    assert explained.predicted_tokens > 0
    assert "w0" in explained.why
    shown = world.core.inspect(world.now_s)
    assert [sum(group.waiting for group in queue.groups) for queue in shown.queues] == [3]
    world.calm()


def lines_of(world: World) -> dict[str, tuple[int, float]]:
    """Of the interactive class, by model: how many wait, and how long one that came now would."""
    [told] = [each for each in world.core.view(world.now_s).classes if each.slo_class == "interactive"]
    assert told.queued == sum(part.queued for part in told.models)
    return {part.model: (part.queued, part.estimated_wait_s) for part in told.models}


def test_each_model_has_a_wait_of_its_own() -> None:
    """Each has a worker; ten wait for the one, nobody for the other."""
    world = World(config(evict=False))
    for model in ("m", "other"):
        world.add_worker(f"w-{model}", "prefill", "decode", slots=1, models=(model,))
    world.pass_time(0.5)
    for _ in range(11):
        world.submit(max_tokens=20)
    world.submit(model="other", max_tokens=20)
    world.pass_time(1.0)
    (waiting, wait_s), (nobody, at_once_s) = (lines_of(world)[model] for model in ("m", "other"))
    assert (waiting, nobody) == (10, 0)
    assert wait_s > 5 * at_once_s > 0.0
    [told] = [each for each in world.core.view(world.now_s).classes if each.slo_class == "interactive"]
    assert told.estimated_wait_s == at_once_s
    world.calm()


def test_the_wait_for_a_model_counts_its_load() -> None:
    world = world_of(slots=1, models=("m", "other"), evict=False)
    world.submit(max_tokens=20)
    world.pass_time(1.0)
    (_, loaded_s), (_, other_s) = (lines_of(world)[model] for model in ("m", "other"))
    assert other_s == pytest.approx(loaded_s + 1.0), "a load takes a second"
    world.calm()


def test_one_model_has_no_parts() -> None:
    world = world_of(slots=1)
    world.submit(max_tokens=20)
    world.pass_time(1.0)
    assert all(not each.models for each in world.core.view(world.now_s).classes)
    world.calm()


def test_who_waits_long_is_told_of_those_who_will_come_and_go_first() -> None:
    """Interactive requests keep the worker half busy; or did so long ago."""
    waits: list[float] = []
    for quiet_s in (0.0, 3 * MEMORY_S):
        world = world_of(slots=1, evict=False, balance=False)
        for _ in range(60):
            world.submit(max_tokens=4)
            world.pass_time(4.0)
        world.pass_time(quiet_s)
        ids = [world.submit(max_tokens=4, slo_class="batch-2") for _ in range(4)]
        world.pass_time(0.5)
        waits.append(world.core.explain(ids[3], world.now_s).estimated_wait_s)
        [told] = world.core.inspect(world.now_s).queues
        assert told.groups[0].estimated_wait_bound_s > told.groups[0].estimated_wait_s
        world.calm()
    assert waits[0] > 1.5 * waits[1] > 0.0


def test_unequal_workers_are_passed_alike() -> None:
    """The faster one gets more of what comes: each has the same share of its time taken, and less than one alone."""
    shares: list[float] = []
    for slots in ((1,), (1, 3)):
        world = World(config())
        for number, count in enumerate(slots):
            world.add_worker(f"w{number}", "prefill", "decode", slots=count)
        world.pass_time(0.5)
        for _ in range(30):
            world.submit(max_tokens=4)
            world.pass_time(4.0)
        found = passing(world.core._cell, world.now_s)
        assert sorted(found) == [f"w{number}" for number in range(len(slots))]
        told = {stream.share for streams in found.values() for stream in streams}
        assert len(told) == 1
        shares += told
        world.calm()
    assert 0.0 < shares[1] < 0.5 * shares[0] < 0.5
