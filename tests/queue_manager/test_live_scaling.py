"""The live autoscaler around a real core: what it makes of events, of an actuator's word and of its silence."""

import asyncio
import time
from collections.abc import Mapping, Sequence

import pytest

from headrace.core.commands import Hold
from headrace.core.effects import Effect
from headrace.core.errors import Unavailable
from headrace.core.events import CaughtUp, Event, Governed, Heartbeat, Joined, RequestAccepted, Tick
from headrace.core.events import Ended as WorkerEnded
from headrace.core.governing import Governance, Speeds
from headrace.core.instance import Done, Encoded, Pace
from headrace.core.queue import QueueConfig, QueueCore
from headrace.core.slo import CLASSES, SloClass
from headrace.core.types import End, Key, Media, MediaMeta, MediaSpan, Prompt
from headrace.mesh.errors import BadSetup
from headrace.v1 import queue_pb2
from services.queue_manager.actuators import Fleet
from services.queue_manager.metrics import queue_registry
from services.queue_manager.scaling import Scaling, Served
from services.queue_manager.scaling_options import ScalingOptions
from services.queue_manager.scaling_shown import mark_startable, scaling_to_proto
from tests.queue_manager.cellmates import MODEL, make_request

POOLS = "encode:0-4 prefill+decode:1-1"
PACE = Pace(step_s=0.01, sequence_s=0.001, prefill_token_s=0.002)
PICTURE = Media(MediaMeta("image", "image/png", 64, 64, 1000), "a" * 64, 50)


class Shop:
    """Implements Actuator: says yes, and keeps the orders."""

    def __init__(self) -> None:
        self.fleet = {"encode": Fleet(0), "prefill+decode": Fleet(1)}
        self.orders: list[tuple[str, int, tuple[str, ...]]] = []
        self.error: Unavailable | None = None
        self.ordered = asyncio.Event()

    async def fleets(self) -> Mapping[str, Fleet]:
        if self.error is not None:
            raise self.error
        return self.fleet

    async def scale(self, pool: str, instances: int, leave_first: Sequence[str]) -> None:
        if self.error is not None:
            raise self.error
        self.orders.append((pool, instances, tuple(leave_first)))
        self.fleet = {**self.fleet, pool: Fleet(instances)}
        self.ordered.set()


class Cell:
    """A leadership without its shell: what the core is told the autoscaler hears."""

    def __init__(
        self, shop: Shop, policy: str = "headrace", classes: Mapping[str, SloClass] = CLASSES, planner: str = ""
    ) -> None:
        pools = POOLS if policy == "headrace" else "encode:0-4 prefill+decode:1-2"
        env = {"HEADRACE_AUTOSCALE": policy, "HEADRACE_AUTOSCALE_POOLS": pools, "HEADRACE_AUTOSCALE_EPOCH_S": "10"}
        options = ScalingOptions.from_env(env)
        assert options is not None
        self.core = QueueCore(QueueConfig(epoch=1, classes=classes, planner=planner))
        self.now_s = time.time()
        served = Served((MODEL,), ("image", "audio"), classes)
        self.scaling = Scaling(options, served, shop, lambda: self.now_s)

    def tell(self, *events: Event) -> list[Effect]:
        effects: list[Effect] = []
        for event in events:
            effects = self.core.handle(event, self.now_s)
            self.scaling.heard(event, effects, self.now_s)
        return effects

    def beat(self, worker: str, incarnation: str = "1", **changes: object) -> list[Effect]:
        stages = ("encode",) if worker.startswith("encoder") else ("prefill", "decode")
        fields = {"slots": 8, "blocks": 1024, "block_tokens": 16, "pace": PACE, "modalities": ("image",)} | changes
        return self.tell(Heartbeat(worker, f"{worker}.{incarnation}", stages, MODEL, sent_s=self.now_s, **fields))  # type: ignore[arg-type]

    async def look(self) -> None:
        await self.scaling.look(self.core)

    def pool(self, name: str) -> tuple[int, int, int, int]:
        """Ready, starting, draining and the target of the last look."""
        found = {pool.name: (pool, target) for pool, target in self.scaling.autoscaler.last}
        pool, target = found[name]
        return pool.ready, pool.starting, pool.draining, target.instances


def picture(number: int, **changes: object) -> RequestAccepted:
    prompt = Prompt((1,) * 60, (MediaSpan(0, 5, 50),))
    return RequestAccepted(make_request(number, media=(PICTURE,), prompt=prompt, **changes), number)


async def test_a_request_that_finds_nobody_brings_an_encoder_and_its_start_is_measured() -> None:
    shop = Shop()
    cell = Cell(shop)
    cell.tell(CaughtUp())
    cell.beat("worker-0")
    await cell.look()
    assert (shop.orders, cell.pool("encode")) == ([], (0, 0, 0, 0))
    cell.tell(picture(1))
    await cell.look()
    assert shop.orders == [("encode", 1, ())]
    await cell.look()
    assert cell.pool("encode")[:2] == (0, 1), "ordered, and not heard yet"
    cell.now_s += 7.0
    cell.beat("encoder-0")
    await cell.look()
    assert cell.pool("encode") == (1, 0, 0, 1)
    [encode, _] = [pool for pool, _ in cell.scaling.autoscaler.last]
    assert encode.start_s == pytest.approx(7.0, abs=0.5)


async def test_capacity_is_what_encoders_have_done_and_engines_say() -> None:
    cell = Cell(Shop())
    cell.tell(CaughtUp())
    cell.beat("worker-0")
    cell.beat("encoder-0", encoded=Encoded(1.0, 50))
    cell.beat("encoder-0", encoded=Encoded(4.0, 200))
    cell.beat("encoder-0", "2", encoded=Encoded(2.0, 100))
    cell.tell(RequestAccepted(make_request(1, prompt=Prompt((1,) * 100)), 1))
    await cell.look()
    encode, llm = [pool for pool, _ in cell.scaling.autoscaler.last]
    assert encode.capacity_per_s == pytest.approx(50.0)
    answer_s = 200 * (0.01 / 8 + 0.001)
    assert llm.capacity_per_s == pytest.approx(100 / (100 * 0.002 + answer_s))


async def test_a_new_leadership_takes_over_what_was_ordered_and_counts_no_old_request_as_new() -> None:
    shop = Shop()
    shop.fleet["encode"] = Fleet(3, frozenset({"encoder-2"}))
    cell = Cell(shop)
    await cell.look()
    assert not cell.scaling.autoscaler.last, "it has not read its journal"
    cell.tell(*[picture(number) for number in range(1, 40)], CaughtUp())
    await cell.look()
    assert not cell.scaling.autoscaler.last, "nor heard its workers"
    cell = Cell(shop)
    cell.tell(CaughtUp())
    for worker in ("worker-0", "encoder-0", "encoder-1", "encoder-2"):
        cell.beat(worker)
    await cell.look()
    assert cell.pool("encode")[:3] == (2, 1, 1), "a third one starts, and whoever leaves does not serve"
    assert shop.orders == []


async def test_first_tokens_are_waited_for_until_they_come_or_are_late() -> None:
    classes = {"quick": SloClass("quick", 2.0, 60.0, 100)}
    cell = Cell(Shop(), classes=classes)
    cell.tell(CaughtUp())
    cell.beat("worker-0")
    for number in range(1, 6):
        prompt = Prompt((number,) * 60)
        cell.tell(RequestAccepted(make_request(number, slo_class="quick", prompt=prompt), number))
    first, second, third, _, _ = (Key(f"{number:032x}", 4097) for number in range(1, 6))
    assert len(cell.scaling.promises) == 5
    cell.tell(Joined("worker-0", first))
    cell.tell(WorkerEnded("worker-0", second, End("cancelled"), ()))
    cell.beat("worker-0", holds=(Hold(third, "decode", next_index=2),))
    assert len(cell.scaling.promises) == 2, "by its own word, its end, or a heartbeat's"
    cell.now_s += 3.0
    await cell.look()
    assert len(cell.scaling.promises) == 0


async def test_without_an_actuator_nothing_is_ordered_and_gateways_are_told_so() -> None:
    shop = Shop()
    cell = Cell(shop)
    cell.tell(CaughtUp())
    cell.beat("worker-0")
    status = queue_pb2.CellStatus(models=[queue_pb2.ModelStatus(model=MODEL, servable=True, modalities=["audio"])])
    mark_startable(status, cell.scaling)
    assert list(status.models[0].startable) == ["image"]
    shop.error = Unavailable("nobody answers on hr.v1.scale")
    cell.tell(picture(1))
    await cell.look()
    assert cell.scaling.trouble == "nobody answers on hr.v1.scale"
    status.models[0].ClearField("startable")
    mark_startable(status, cell.scaling)
    assert not status.models[0].startable
    shop.error = None
    await cell.look()
    assert (cell.scaling.trouble, shop.orders) == ("", [("encode", 1, ())])


async def test_the_emptiest_leave_first() -> None:
    shop = Shop()
    shop.fleet = {"encode": Fleet(0), "prefill+decode": Fleet(2)}
    cell = Cell(shop, "published")
    cell.tell(CaughtUp())
    cell.beat("worker-0")
    cell.beat("worker-1")
    cell.tell(RequestAccepted(make_request(1), 1))
    busy = next(worker.worker for worker in cell.core.view(cell.now_s).workers if worker.slots_used)
    idle = ({"worker-0", "worker-1"} - {busy}).pop()
    await cell.look()
    assert shop.orders == []
    cell.now_s += 11.0  # past the epoch
    await cell.look()
    assert shop.orders == [("prefill+decode", 1, (idle, busy))]


async def test_what_is_shown() -> None:
    shop = Shop()
    cell = Cell(shop)
    cell.tell(CaughtUp())
    cell.beat("worker-0")
    cell.tell(picture(1))
    await cell.look()
    told = scaling_to_proto(cell.scaling)
    assert (told.policy, [pool.pool for pool in told.pools]) == ("headrace", ["encode", "prefill+decode"])
    [made] = told.decisions
    assert (made.pool, made.before, made.after, made.error) == ("encode", 0, 1, "")
    assert "tokens/s expected" in made.reason
    families = queue_registry(lambda: None, lambda: cell.scaling).collect()
    samples = {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}
    assert samples["headrace_autoscale_target", "encode"] == 1
    assert samples["headrace_autoscale_decisions_total", "encode", "up"] == 1
    assert samples["headrace_autoscale_instances", "prefill+decode", "ready"] == 1


async def test_looking_changes_no_decision_of_the_queue() -> None:
    """The same events with looks between them and without: effect for effect the same."""
    watched, unwatched = Cell(Shop(), planner="headrace"), Cell(Shop(), planner="headrace")
    unwatched.now_s = watched.now_s
    told: dict[bool, list[list[Effect]]] = {True: [], False: []}
    for looked_at, cell in ((True, watched), (False, unwatched)):
        cell.tell(CaughtUp())
        for number in range(1, 60):
            cell.now_s += 0.1
            if number % 5 == 1:
                for worker in ("worker-0", "worker-1", "encoder-0"):
                    told[looked_at].append(cell.beat(worker, done=Done(0.05 * number, number, 9 * number, 5 * number)))
            prompt = Prompt((number,) * (40 + number))
            request = make_request(number, prompt=prompt, accepted_s=cell.now_s, deadline_s=cell.now_s + 60.0)
            told[looked_at] += [cell.tell(RequestAccepted(request, number)), cell.tell(Tick())]
            if looked_at:
                await cell.look()
                scaling_to_proto(cell.scaling)
    assert told[True] == told[False]
    assert sum(map(len, told[True])) > 20


async def test_it_looks_again_at_once_for_a_request_that_finds_nobody() -> None:
    shop = Shop()
    cell = Cell(shop)
    cell.tell(CaughtUp())
    cell.beat("worker-0")
    running = asyncio.create_task(cell.scaling.run(cell.core))
    await asyncio.sleep(1.5)  # one look is over; the next is five seconds off
    cell.tell(picture(1))
    await asyncio.wait_for(shop.ordered.wait(), 3.0)
    running.cancel()


BAD = {
    "an unknown policy": ({"HEADRACE_AUTOSCALE": "yes"}, "HEADRACE_AUTOSCALE='yes'"),
    "no pool": ({"HEADRACE_AUTOSCALE_POOLS": ""}, "names no pool"),
    "no pool's form": ({"HEADRACE_AUTOSCALE_POOLS": "encoder"}, "is not stages:least-most"),
    "no stage": ({"HEADRACE_AUTOSCALE_POOLS": "encoders:1-2"}, "no stage 'encoders'"),
    "upside down": ({"HEADRACE_AUTOSCALE_POOLS": "encode:3-2"}, "the least is above the most"),
    "an LLM to zero": ({"HEADRACE_AUTOSCALE_POOLS": "prefill:0-2"}, "only encoders may go to zero"),
    "twice": ({"HEADRACE_AUTOSCALE_POOLS": "encode:1-2 encode:1-3"}, "names a pool twice"),
    "no number": ({"HEADRACE_AUTOSCALE_LOOK_S": "soon"}, "HEADRACE_AUTOSCALE_LOOK_S='soon'"),
    "too few": ({"HEADRACE_AUTOSCALE_INSTANCES": "1"}, "the pools' least take 2"),
    "no way": ({"HEADRACE_AUTOSCALE_VIA": "docker"}, "supervisor, kubernetes"),
}


@pytest.mark.parametrize(("changes", "says"), BAD.values(), ids=BAD)
def test_settings_that_make_no_sense_name_their_variable(changes: dict[str, str], says: str) -> None:
    env = {"HEADRACE_AUTOSCALE": "headrace", "HEADRACE_AUTOSCALE_POOLS": "encode:1-2 decode:1-2"}
    with pytest.raises(BadSetup, match=says.replace("(", r"\(")):
        ScalingOptions.from_env(env | changes)


def test_settings() -> None:
    assert ScalingOptions.from_env({}) is None
    assert ScalingOptions.from_env({"HEADRACE_AUTOSCALE": "off"}) is None
    env = {"HEADRACE_AUTOSCALE": "published", "HEADRACE_AUTOSCALE_POOLS": "encode:0-4:900@towers, decode+prefill:1-2"}
    options = ScalingOptions.from_env(env)
    assert options is not None
    encode, llm = options.pools
    assert (encode.least, encode.most, encode.capacity_per_s, encode.deployment_name) == (0, 4, 900.0, "towers")
    assert (llm.name, llm.stages, llm.deployment_name) == (
        "prefill+decode",
        ("prefill", "decode"),
        "headrace-prefill-decode",
    )
    assert options.instances_max == 6


async def test_a_cap_takes_capacity_at_once_and_wakes_the_autoscaler() -> None:
    cell = Cell(Shop())
    cell.beat("llm-0")
    cell.beat("encoder-0")
    cell.beat("encoder-0", encoded=Encoded(1.0, 1000))
    await cell.scaling.look(cell.core)
    before = {sight.name: sight.capacity_per_s for sight, _ in cell.scaling.autoscaler.last}
    cell.scaling._woken.clear()
    said = tuple([Governance(worker, speeds=Speeds(0.5, 0.5, 0.5)) for worker in ("llm-0", "encoder-0")])
    cell.tell(Governed("g", 1, 1, 30.0, said))
    assert cell.scaling._woken.is_set()
    await cell.scaling.look(cell.core)
    after = {sight.name: sight.capacity_per_s for sight, _ in cell.scaling.autoscaler.last}
    assert after == {name: pytest.approx(0.5 * capacity) for name, capacity in before.items()}
    cell.beat("encoder-0", encoded=Encoded(3.0, 2000))  # twice as long for as much
    await cell.scaling.look(cell.core)
    again = {sight.name: sight.capacity_per_s for sight, _ in cell.scaling.autoscaler.last}
    assert again == {name: pytest.approx(capacity, rel=0.01) for name, capacity in after.items()}
    cell.scaling._woken.clear()
    cell.tell(Governed("g", 1, 2, 30.0, said))
    cell.tell(Governed("g", 1, 1, 30.0))
    assert not cell.scaling._woken.is_set(), "nothing is new, or it is older"
