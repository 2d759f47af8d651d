"""The governor's word in the queue manager: expected waits, slots, risk, and a governor that falls silent."""

from typing import Any

import pytest

from headrace.core import events as ev
from headrace.core.governing import FULL, Governance, Speeds, StageHint
from headrace.core.instance import Done, Pace
from headrace.core.queue import QueueConfig, QueueCore
from headrace.core.slo import SloClass
from headrace.core.stages.roles import Elastic, Member, Sight
from headrace.core.stages.routing import least_pending
from headrace.core.waiting import PaceLearner
from headrace.wire.governed import LEASE_S_MOST, SPEED_LEAST, governed_from_proto
from tests.core.queue_world import World
from tests.core.test_encoder_affinity import Load

CLASSES = {
    "interactive": SloClass("interactive", ttft_s=2.0, timeout_s=1e5, queue_limit=1000),
    "batch-2": SloClass("batch-2", ttft_s=3600.0, timeout_s=1e5, queue_limit=1000),
}


def world_of(*, slots: int = 4, workers: int = 1, planner: str = "headrace", **changes: Any) -> World:
    world = World(QueueConfig(epoch=1, planner=planner, classes=CLASSES, **changes))
    for number in range(workers):
        world.add_worker(f"w{number}", "prefill", "decode", slots=slots)
    world.pass_time(0.5)
    return world


def say(world: World, *said: Governance, sequence: int = 1, lease_s: float = 1e6, epoch: int = 1) -> None:
    world.handle(ev.Governed("gov", epoch, sequence, lease_s, said))


def half(worker: str = "w0") -> Governance:
    return Governance(worker, speeds=Speeds(0.5, 0.5, 0.5))


def running(world: World, worker: str) -> int:
    return next(shown.slots_used for shown in world.core.view(world.now_s).workers if shown.worker == worker)


def wait_of(world: World, request_id: str) -> float:
    return world.core.explain(request_id, world.now_s).estimated_wait_s


# --- expected waits ---


def test_at_half_its_speed_the_expected_wait_doubles_at_once() -> None:
    world = world_of(slots=1)
    world.submit(slo_class="batch-2", max_tokens=60)
    last = world.submit(slo_class="batch-2", max_tokens=60)
    before = wait_of(world, last)
    say(world, half())
    assert wait_of(world, last) == pytest.approx(2 * before, rel=0.01)
    queue = world.core.inspect(world.now_s).queues[0]
    assert (queue.speeds.decode, queue.slots_usable) == (0.5, 1)
    why = world.core.explain(last, world.now_s).why
    assert "w0 runs at 0.5 of its speed under a power cap" in why


def test_what_the_worker_then_measures_is_not_counted_again() -> None:
    """Its iterations take twice as long, as they should."""
    core = QueueCore(QueueConfig(epoch=1, planner="headrace", classes=CLASSES))
    core.handle(ev.CaughtUp(), 0.0)
    done, pace, now_s = Done(), Pace(0.05, 0.0, 0.0), 0.0
    for beat in range(60):
        now_s += 0.5
        if beat == 20:
            core.handle(ev.Governed("gov", 1, 1, 1e6, (half("w"),)), now_s)
        steps = 10 if beat <= 20 else 5
        done = Done(done.busy_s + 0.5, done.iterations + steps, 0, done.decode_tokens + 4 * steps)
        beaten = ev.Heartbeat("w", "w/1", ("prefill", "decode"), "m", slots=4, blocks=64, sent_s=now_s, pace=pace)
        core.handle(ev.Heartbeat(**{**{name: getattr(beaten, name) for name in beaten.__slots__}, "done": done}), now_s)
        core.handle(ev.Tick(), now_s)
    view = core.view(now_s).workers[0]
    assert view.pace.step_s + 4 * view.pace.sequence_s == pytest.approx(0.05, rel=0.03), "its pace is of full speed"
    assert core.inspect(now_s).queues[0].tokens_per_s == pytest.approx(4 / 0.1, rel=0.03)


def test_the_planner_reckons_with_it() -> None:
    world = world_of(workers=2, slots=1)
    for _ in range(2):
        world.submit(slo_class="batch-2", max_tokens=30)
    say(world, Governance("w0", speeds=Speeds(0.25, 0.25, 0.25)))
    for _ in range(5):
        world.submit(max_tokens=4)
        world.submit(slo_class="batch-2", max_tokens=20)
    queues = {queue.worker: sum(group.waiting for group in queue.groups) for queue in world.core.inspect(0.0).queues}
    assert queues["w1"] > queues["w0"]
    world.calm()


# --- slots ---


@pytest.mark.parametrize("planner", ["", "headrace"])
def test_of_its_slots_no_more_are_used_and_what_runs_stays(planner: str) -> None:
    world = world_of(slots=4, planner=planner)
    for _ in range(8):
        world.submit(slo_class="batch-2", max_tokens=10)
    world.deliver_all()
    assert running(world, "w0") == 4
    say(world, Governance("w0", slots_share=0.3))
    world.pass_time(2.0)
    assert running(world, "w0") == 4, "nobody is put out for it"
    world.pass_time(7.0)
    assert running(world, "w0") == 2, "the ceiling of 0.3 x 4"
    say(world, sequence=2)
    world.pass_time(0.5)
    assert running(world, "w0") == 4
    world.calm()


def test_nobody_is_evicted_so_that_a_share_is_kept() -> None:
    world = World(QueueConfig(epoch=1, planner="headrace", classes=CLASSES, evict_rest_s=0.0, evict_tokens_min=1))
    world.host_bytes = 1 << 20
    world.add_worker("w0", "prefill", "decode", slots=4)
    world.pass_time(0.5)
    for _ in range(4):
        world.submit(slo_class="batch-2", max_tokens=60)
    world.pass_time(2.0)
    say(world, Governance("w0", slots_share=0.5))
    world.submit(max_tokens=4)
    world.pass_time(3.0)
    assert "evict_asked" not in world.core.inspect(world.now_s).operations
    world.calm()


# --- risk ---


@pytest.mark.parametrize("planner", ["", "headrace"])
def test_a_worker_at_risk_gets_nothing_new_while_others_have_room(planner: str) -> None:
    world = world_of(workers=3, slots=2, planner=planner)
    say(world, Governance("w0", weight=0.0))
    for _ in range(4):
        world.submit(max_tokens=4)
    assert [running(world, f"w{number}") for number in range(3)] == [0, 2, 2]
    world.calm()


def test_who_can_wait_for_the_others_does_and_who_cannot_goes_to_the_one_at_risk() -> None:
    world = world_of(workers=2, slots=1)
    say(world, Governance("w0", weight=0.0))
    world.submit(slo_class="batch-2", max_tokens=20)
    patient = world.submit(slo_class="batch-2", max_tokens=4)
    world.pass_time(2.0)
    assert running(world, "w0") == 0
    assert world.core.explain(patient, world.now_s).state == "queued"
    urgent = world.submit(max_tokens=4)
    assert world.core.explain(urgent, world.now_s).worker == "w0"
    world.calm()


def test_at_risk_all_alike_nobody_waits() -> None:
    world = world_of(workers=2, slots=1)
    say(world, Governance("w0", weight=0.0), Governance("w1", weight=0.1))
    for _ in range(2):
        world.submit(slo_class="batch-2", max_tokens=4)
    assert [running(world, each) for each in ("w0", "w1")] == [1, 1]
    world.calm()


def test_decode_workers_at_risk_are_last_and_slow_ones_get_less() -> None:
    world = World(QueueConfig(epoch=1, planner="headrace", classes=CLASSES))
    world.add_worker("p", "prefill", slots=8)
    for name in ("d0", "d1", "d2"):
        world.add_worker(name, "decode", slots=8)
    world.pass_time(0.5)
    say(world, Governance("d0", weight=0.0), Governance("d1", speeds=Speeds(decode=0.4)))
    for _ in range(6):
        world.submit(max_tokens=40)
    found = [running(world, name) for name in ("d0", "d1", "d2")]
    assert found[0] == 0
    assert 0 < found[1] < found[2]
    world.calm()


# Two encoders: pending of a and b, speed times weight of a, chosen for 100 tokens.
ENCODERS = [
    (0, 0, 1.0, "a"),
    (0, 0, 0.9, "b"),
    (0, 100, 0.6, "a"),
    (100, 200, 0.6, "b"),
    (0, 800, 0.1, "b"),  # at risk: it is sent little,
    (0, 901, 0.1, "a"),  # but nobody waits long for the others
    (0, 901, 1.0, "a"),
]


@pytest.mark.parametrize(("a", "b", "speed", "chosen"), ENCODERS)
def test_encoders_by_time_and_risk(a: int, b: int, speed: float, chosen: str) -> None:
    loads = [Load("a", a, encode_speed=speed), Load("b", b)]
    found = least_pending(loads, 100, 1000)
    assert found is not None
    assert found.id == chosen


# --- roles ---


def test_what_the_governor_wants_too_is_changed_at_once() -> None:
    members = [Member("a", "prefill", 0.0), *(Member(name, "decode", 0.0) for name in "bcd")]
    for hint, change in ((0, False), (1, True), (-1, False)):
        sight = Sight(members, 1.9, 1.0, hint=hint)
        assert sight.best().prefill > 1
        roles = Elastic().choose(sight, 100.0)
        assert (list(roles.values()).count("prefill") > 1) == change, hint


# --- words that come late, twice, or no more ---


def test_an_older_word_is_ignored_and_a_newer_governor_is_not() -> None:
    world = world_of()
    say(world, half(), sequence=5)
    say(world, sequence=4)
    assert world.core.view(0.0).workers[0].speeds.decode == 0.5
    say(world, sequence=1, epoch=2)
    assert world.core.view(0.0).workers[0].speeds == FULL
    say(world, half(), sequence=6)
    assert world.core.view(0.0).workers[0].speeds == FULL


def test_a_governor_that_falls_silent_governs_nothing() -> None:
    world = world_of(slots=1)
    world.submit(slo_class="batch-2", max_tokens=30)
    last = world.submit(slo_class="batch-2", max_tokens=30)
    before = wait_of(world, last)
    said = Governance("w0", 0.0, 0.5, Speeds(0.5, 0.5, 0.5))
    say(world, said, lease_s=1.2)
    assert wait_of(world, last) > 1.9 * before
    world.pass_time(2.0)
    view = world.core.view(world.now_s).workers[0]
    assert (view.speeds, view.slots_share) == (FULL, 1.0)
    assert world.core.inspect(world.now_s).queues[0].weight == 1.0
    assert world.core.inspect(world.now_s).operations["governor_lost"] == 1
    assert wait_of(world, last) < before
    world.calm()


def test_who_comes_later_is_governed_too() -> None:
    world = world_of()
    say(world, half("w9"))
    world.add_worker("w9", "prefill", "decode", slots=4)
    world.pass_time(0.5)
    assert next(each.speeds.decode for each in world.core.view(0.0).workers if each.worker == "w9") == 0.5


def test_hints_are_kept_for_the_roles() -> None:
    world = world_of(roles="elastic")
    world.handle(ev.Governed("gov", 1, 1, 1.0, (), (StageHint("prefill", 1),)))
    world.pass_time(3.0)
    assert world.core.inspect(world.now_s).operations["governor_lost"] == 1


def test_tokens_per_s_of_a_learner_are_at_the_speed_that_is_left() -> None:
    assert PaceLearner(Pace(0.1)).tokens_per_s(4, Speeds(decode=0.5)) == pytest.approx(20.0)


# --- the message ---


def batch(**fields: float) -> Any:
    from headrace.v1 import governor_pb2

    values = {"weight": 1.0, "slots_share": 1.0, "prefill_factor": 0.5, "decode_factor": 0.9, "encode_factor": 1.0}
    caps = governor_pb2.WorkerCaps(worker="w0", **values | fields)  # type: ignore[arg-type]
    stages = [governor_pb2.StageBudget(stage="prefill", move=1), governor_pb2.StageBudget(stage="decode")]
    return governor_pb2.CapBatch(governor="g", epoch=2, sequence=3, lease_s=5.0, workers=[caps], stages=stages)


def test_caps_as_the_core_reads_them() -> None:
    said = ev.Governed("g", 2, 3, 5.0, (Governance("w0", speeds=Speeds(0.5, 0.9)),), (StageHint("prefill", 1),))
    assert governed_from_proto(batch()) == said


def test_what_is_not_said_is_full_speed_and_what_is_too_much_is_bounded() -> None:
    message = batch(prefill_factor=0.0, decode_factor=1.4, encode_factor=1e-9)
    message.lease_s = 1e9
    read = governed_from_proto(message)
    assert read.lease_s == LEASE_S_MOST
    assert read.workers[0].speeds == Speeds(1.0, 1.0, SPEED_LEAST)


@pytest.mark.parametrize("field", ["weight", "slots_share", "prefill_factor", "decode_factor", "encode_factor"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1])
def test_what_cannot_be_names_its_field(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"w0 {field}"):
        governed_from_proto(batch(**{field: value}))
