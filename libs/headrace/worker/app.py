"""One worker put together: the stages it has, around one set of holds, one outbox and one pulse.

Stages in one process share memory: what one makes the next finds in the holds, and nothing is transferred.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from headrace.core.stages.roster import Roster
from headrace.core.types import StageName
from headrace.engines.base import Engine, ModelSpec
from headrace.mesh import subjects
from headrace.mesh.blobs import BlobStore
from headrace.mesh.bus import Bus
from headrace.mesh.faults import reach
from headrace.mesh.logs import get_logger
from headrace.mesh.sensors import Sensors
from headrace.mesh.store import Store
from headrace.mesh.transfer import TensorStore
from headrace.modalities import Encoder
from headrace.v1 import worker_pb2
from headrace.worker.commands import Commands
from headrace.worker.encoder import BATCH_MAX, EncodeStage
from headrace.worker.exports import Exports
from headrace.worker.handover import Handover
from headrace.worker.holds import Held, Holds
from headrace.worker.intake import Intake
from headrace.worker.kvwire import KvTravel
from headrace.worker.lease import Lease
from headrace.worker.llm import Llm
from headrace.worker.offers import Offers
from headrace.worker.outbox import Outbox
from headrace.worker.pulse import Gauges, Identity, Pulse
from headrace.worker.requests import Requests
from headrace.worker.spans import Spans
from headrace.worker.tally import Tally
from headrace.worker.tokenlog import TokenLog

log = get_logger("worker")

DRAIN_LOOK_S = 0.05
# Ended requests stand beside running ones until their ends are stored, a few milliseconds; while results cannot
# be stored they gather, and new work is refused rather than the memory filled.
HELD_PER_SLOT = 16


@dataclass(frozen=True, slots=True)
class Address:
    """Where peers find this process."""

    incarnation: str
    host: str
    grpc_address: str


@dataclass(frozen=True, slots=True)
class Carriers:
    """Everything that leaves the process goes through one of these."""

    bus: Bus
    store: Store
    blobs: BlobStore
    tensors: TensorStore


@dataclass(frozen=True, slots=True)
class Outfit:
    """What the stages run on. An encoder has no engine; prefill and decode have no encoders."""

    spec: ModelSpec
    pieces: Sequence[bytes]
    engine: Engine | None
    encoders: Mapping[str, Encoder]
    sensors: Sensors  # of the devices that it runs on
    hands_over: bool = True  # the engine's KV caches can leave and enter it


class Worker:
    """One process's stages. What a task of it cannot cope with ends the process."""

    def __init__(
        self,
        me: str,
        stages: tuple[StageName, ...],
        address: Address,
        carriers: Carriers,
        outfit: Outfit,
        travel: KvTravel,
    ) -> None:
        self.holds = Holds()
        self._me = me
        self._carriers = carriers
        self._outfit = outfit
        self._travel = travel
        self._tasks = asyncio.TaskGroup()
        self._work = asyncio.Event()
        self._tally = Tally()
        self._lease = Lease(time.monotonic())
        self._log = TokenLog(carriers.store, self.holds, self._lease)
        self._outbox = Outbox(carriers.bus, me, address.incarnation, self._log.writing)
        self._encode = self._encode_stage(in_memory="prefill" in stages) if "encode" in stages else None
        self._requests: Requests | None = None
        self._llm: Llm | None = None
        self._offers: Offers | None = None
        if outfit.engine is not None:
            self._equip(outfit.engine)
        self._commands = Commands(me, self._outbox, self._requests, self._encode)
        self.identity = self._identify(stages, address)
        self._pulse = Pulse(
            self.identity,
            carriers.bus,
            self.holds,
            self._outbox,
            self._tally,
            self._lease,
            outfit.sensors,
            self._gauges,
            self._requests.repeat_ends if self._requests is not None else lambda _before_s: None,
        )

    def _encode_stage(self, *, in_memory: bool) -> EncodeStage:
        carried = self._carriers
        return EncodeStage(
            self._me,
            self._outfit.encoders,
            carried.blobs,
            carried.tensors,
            carried.store,
            self.holds,
            self._outbox,
            self._tally,
            self._lease,
            in_memory=in_memory,
        )

    def _equip(self, engine: Engine) -> None:
        """Prefill, decode or both: one loop."""
        carried, spec = self._carriers, self._outfit.spec
        roster = Roster[Held](engine.slots, engine.blocks)
        self._offers = Offers(carried.tensors, self._tasks.create_task, engine.slots)
        self._exports = Exports(
            self._me, engine, carried.tensors, self._travel, partial(_in_loop, asyncio.get_running_loop(), self._offer)
        )
        self._requests = Requests(
            Intake(self._me, spec, self._outfit.pieces, engine.blocks, self._outfit.hands_over),
            self.holds,
            roster,
            self._outbox,
            carried.tensors,
            self._offers,
            Spans(self._me, spec.prefix_tokens),
            spawn=self._tasks.create_task,
            withdraw=self._withdraw,
            wake=self._work.set,
            held_max=HELD_PER_SLOT * engine.slots,
        )
        self._llm = Llm(
            self._me,
            engine,
            roster,
            self.holds,
            self._requests,
            self._outbox,
            self._exports,
            self._announce,
            self._tally,
        )
        self._handover = Handover(carried.bus, carried.store, self._outbox, self._lease)

    def _offer(self, held: Held) -> None:
        kv = self._exports.offer(held)
        if kv is not None and held.state in ("waiting", "prefill"):
            held.offered = True
            self._handover.offer(held, kv, self._commands.epoch)
            reach("prefill.offered", held.key.request_id)

    def _withdraw(self, held: Held) -> None:
        self._handover.offer(held, None, self._commands.epoch)

    def _announce(self, exported: list[Held]) -> None:
        self._tasks.create_task(self._handover.announce(exported, self._commands.epoch))

    def _identify(self, stages: tuple[StageName, ...], address: Address) -> Identity:
        spec, engine = self._outfit.spec, self._outfit.engine
        return Identity(
            worker=self._me,
            incarnation=address.incarnation,
            stages=stages,
            model=spec.name,
            host=address.host,
            grpc_address=address.grpc_address,
            modalities=tuple(self._outfit.encoders),
            slots=engine.slots if engine is not None else BATCH_MAX,
            blocks=engine.blocks if engine is not None else 0,
            block_tokens=spec.block_tokens,
        )

    def _gauges(self) -> Gauges:
        engine = self._outfit.engine
        return Gauges(
            slots_used=engine.slots_used() if engine is not None else 0,
            blocks_used=engine.blocks_used() if engine is not None else 0,
            epoch=self._commands.epoch,
        )

    def state(self) -> worker_pb2.WorkerState:
        identity, gauges, tensors = self.identity, self._gauges(), self._carriers.tensors
        return worker_pb2.WorkerState(
            worker=identity.worker,
            incarnation=identity.incarnation,
            stages=identity.stages,
            slots=identity.slots,
            slots_used=gauges.slots_used,
            blocks=identity.blocks,
            blocks_used=gauges.blocks_used,
            handles=len(tensors.handles()),
            mapped_files=len(tensors.files()),
            kept_requests=len(self.holds.requests),
            epoch=gauges.epoch,
            offers=len(self._offers) if self._offers is not None else 0,
        )

    async def run(self, stopping: asyncio.Event, ready: Callable[[], None], drain_s: float) -> None:
        """Serve until `stopping`, then finish what is held, at most drain_s long, and take leave.

        Whoever dies of a bug takes no leave: what it worked on must be suspected.
        """
        async with self._tasks as tasks:
            subscription = await self._carriers.bus.subscribe(subjects.work(self._me), self._commands.on_message)
            services = [tasks.create_task(service) for service in self._services()]
            ready()
            await stopping.wait()
            await self._drain(drain_s)
            await subscription.unsubscribe()
            for service in services:
                service.cancel()
        self._pulse.beat(leaving=True)

    def _services(self) -> list[Coroutine[Any, Any, None]]:
        services = [self._pulse.run(), self._pulse.sense()]
        if self._encode is not None:
            services.append(self._encode.run())
        if self._llm is not None:
            services += [self._llm.run(self._work), self._log.run(self._outbox.flush)]
        return services

    async def _drain(self, drain_s: float) -> None:
        """Until everything is released: an end that is not stored yet would be lost with the process."""
        self._pulse.draining = True
        self._pulse.beat()
        waited_s = 0.0
        while len(self.holds) and waited_s < drain_s:
            await asyncio.sleep(DRAIN_LOOK_S)
            waited_s += DRAIN_LOOK_S
        log.info("drained", left=len(self.holds), waited_s=round(waited_s, 2))


def _in_loop(loop: asyncio.AbstractEventLoop, call: Callable[[Held], None], held: Held) -> None:
    """From the inference thread."""
    loop.call_soon_threadsafe(call, held)
