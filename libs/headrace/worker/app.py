"""One worker put together: the stages it has, around one set of holds, one outbox and one pulse.

Stages in one process share memory: what one makes the next finds in the holds, and nothing is transferred. A load
replaces the Outfit, which is the model; holds, outbox and pulse outlive it, and so do requests that wait for theirs.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from headrace.core.stages.roster import Roster
from headrace.core.types import StageName
from headrace.engines.base import Engine
from headrace.mesh import subjects
from headrace.mesh.blobs import BlobStore
from headrace.mesh.bus import Bus
from headrace.mesh.faults import reach
from headrace.mesh.logs import get_logger
from headrace.mesh.store import Store
from headrace.mesh.transfer import TensorStore
from headrace.v1 import worker_pb2
from headrace.worker.caps import Caps
from headrace.worker.commands import Commands
from headrace.worker.devices import Devices
from headrace.worker.draining import drain
from headrace.worker.embeddings import Embeddings
from headrace.worker.encoder import BATCH_MAX, EncodeStage
from headrace.worker.evictions import Evictions
from headrace.worker.exports import Exports
from headrace.worker.handover import Handover
from headrace.worker.holds import Held, Holds
from headrace.worker.intake import Intake
from headrace.worker.kvwire import KvTravel
from headrace.worker.lease import Lease
from headrace.worker.llm import Llm
from headrace.worker.models import Card, Models
from headrace.worker.offers import Offers
from headrace.worker.outbox import Outbox
from headrace.worker.outfit import Loaded, Outfit
from headrace.worker.pace import Pace
from headrace.worker.playing import Alone, load_of
from headrace.worker.pulse import Gauges, Identity, Pulse
from headrace.worker.requests import Requests
from headrace.worker.spans import Spans
from headrace.worker.tally import Tally
from headrace.worker.tokenlog import TokenLog

log = get_logger("worker")


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
    devices: Devices  # that it runs on


@dataclass(frozen=True, slots=True)
class Stock:
    """What a process has of models: one that is loaded, and others that it may load instead."""

    first: Outfit
    cards: tuple[Card, ...] = ()  # of all that it may serve, the first included; fewer than two: it keeps its model
    warm_max: int = 0  # beside the loaded one, in host memory
    first_load_s: float = 0.0  # what it took


class Worker:
    """One process's stages. What a task of it cannot cope with ends the process."""

    def __init__(
        self,
        me: str,
        stages: tuple[StageName, ...],
        address: Address,
        carriers: Carriers,
        stock: Stock,
        travel: KvTravel,
        evicted_bytes: int = 0,
        encoder_cache_bytes: int = 0,
        encoder_batch: int = BATCH_MAX,
    ) -> None:
        """evicted_bytes: of KV caches of requests that are taken out of the engine; 0: none is. encoder_cache_bytes: of
        embeddings that are kept for requests to come; 0: none. encoder_batch: media parts that go through the tower
        at once."""
        self.holds = Holds()
        self._me = me
        self._stages = stages
        self._address = address
        self._carriers = carriers
        self._travel = travel
        self._encoder_batch = encoder_batch
        self._thread = ThreadPoolExecutor(1, "inference")
        self._models = Models(stock.first, stock.cards, self._in_thread, stock.warm_max, stock.first_load_s)
        self._wanted = ""  # the model that is to be served instead
        self._loading = self._load_error = ""
        self._tasks = asyncio.TaskGroup()
        self._work = asyncio.Event()
        self._tally = Tally()
        self._pace = Pace()
        self._caps = Caps(me, carriers.devices, Alone(me, stages, carriers.store, self._load, time.time))
        self._lease = Lease(time.monotonic())
        self._log = TokenLog(carriers.store, self.holds, self._lease)
        self._outbox = Outbox(carriers.bus, me, address.incarnation, self._log.writing)
        in_memory = "prefill" in stages
        self._encode = self._encode_stage(encoder_cache_bytes, in_memory=in_memory) if "encode" in stages else None
        evicts = "decode" in stages and stock.first.hands_over
        self._evicted_bytes = min(evicted_bytes, carriers.tensors.limit_bytes) if evicts else 0
        self._requests: Requests | None = None
        self._evictions: Evictions | None = None
        self._loaded: Loaded | None = None
        self._offers: Offers | None = None
        if stock.first.engine is not None:
            self._equip(stock.first, stock.first.engine)
        self._commands = Commands(me, self._outbox, self._requests, self._evictions, self._encode, self._order)
        self.identity = self._identify()
        self._pulse = Pulse(
            lambda: self.identity,
            carriers.bus,
            self.holds,
            self._outbox,
            self._tally,
            self._lease,
            carriers.devices,
            self._gauges,
            self._requests.repeat_ends if self._requests is not None else lambda _before_s: None,
        )

    @property
    def encode_stage(self) -> EncodeStage | None:
        return self._encode

    def _encode_stage(self, cache_bytes: int, *, in_memory: bool) -> EncodeStage:
        carried = self._carriers
        embeddings = Embeddings(
            carried.tensors, carried.store, self.holds, self._outbox, self._lease, in_memory=in_memory
        )
        return EncodeStage(
            self._me,
            self._models.loaded,
            carried.blobs,
            embeddings,
            self.holds,
            self._tally,
            self._pace,
            carried.devices,
            cache_bytes,
            self._encoder_batch,
        )

    def _equip(self, outfit: Outfit, engine: Engine) -> None:
        """Prefill, decode or both: what outlives a model."""
        carried = self._carriers
        spans = Spans(self._me, carried.devices.account)
        self._loaded = self._take_up(outfit, engine)
        self._offers = Offers(carried.tensors, self._tasks.create_task, engine.slots)
        self._requests = Requests(
            self._me,
            self._loaded,
            self.holds,
            self._outbox,
            carried.tensors,
            self._offers,
            spans,
            spawn=self._tasks.create_task,
            withdraw=self._withdraw,
            wake=self._work.set,
        )
        self._evictions = Evictions(
            self._requests, self.holds, self._outbox, spans, self._send_on, self._work.set, self._evicted_bytes
        )
        self._handover = Handover(carried.bus, carried.store, self._outbox, self._lease)

    def _take_up(self, outfit: Outfit, engine: Engine) -> Loaded:
        growing = partial(_in_loop, asyncio.get_running_loop(), self._offer)
        return Loaded(
            engine,
            Intake(self._me, outfit.spec, outfit.pieces, engine.blocks, outfit.hands_over),
            Roster[Held](engine.slots, engine.blocks),
            Exports(self._me, engine, self._carriers.tensors, self._travel, growing),
        )

    async def _in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    # --- what leaves for other workers ---

    def _offer(self, held: Held) -> None:
        assert self._loaded is not None
        kv = self._loaded.exports.offer(held)
        if kv is not None and held.state in ("waiting", "prefill"):
            held.offered = True
            self._handover.offer(held, kv, self._commands.epoch)
            reach("prefill.offered", held.key.request_id)

    def _withdraw(self, held: Held) -> None:
        self._handover.offer(held, None, self._commands.epoch)

    def _announce(self, exported: list[Held]) -> None:
        self._tasks.create_task(self._handover.announce(exported, self._commands.epoch))

    def _send_on(self, moved: list[Held]) -> None:
        self._tasks.create_task(self._handover.send_on(moved, self._commands.epoch))

    # --- one model after another ---

    def _order(self, model: str) -> None:
        """From now on this model. Carried out between two iterations; of several orders the last one counts."""
        if model == self._loading:
            self._wanted = ""  # what was ordered in between is taken back
            return
        if model in self._models:
            self._wanted = model
            self._work.set()
            return
        self._load_error = f"{model}: {self._me} has no such model to load"
        self.identity = self._identify()
        self._pulse.beat()

    def _other_wanted(self) -> bool:
        return self._wanted not in ("", self._models.loaded.spec.name)

    async def _serve(self) -> None:
        requests, evictions = self._requests, self._evictions
        assert requests is not None
        assert evictions is not None
        while True:
            assert self._loaded is not None
            llm = Llm(
                self._me,
                self._loaded,
                self._thread,
                self.holds,
                requests,
                evictions,
                self._outbox,
                self._announce,
                self._tally,
                self._pace,
                self._carriers.devices,
            )
            await llm.run(self._work, self._other_wanted)
            await self._change_model(requests)
            self._work.set()

    async def _change_model(self, requests: Requests) -> None:
        self._loading, self._load_error = self._wanted, ""
        self._wanted = ""
        await self._tell()
        reach("worker.loading")
        self._load_error = await self._models.change(self._loading, self._tally.pace())
        outfit = self._models.loaded
        assert outfit.engine is not None
        self._tally.loaded()
        self._loaded = self._take_up(outfit, outfit.engine)
        requests.serve(self._loaded)
        if self._encode is not None:
            self._encode.serve(outfit)
        log.info("loaded", model=outfit.spec.name, wanted=self._loading, error=self._load_error)
        self._loading = ""
        await self._tell()
        reach("worker.loaded")

    async def _tell(self) -> None:
        self.identity = self._identify()
        self._pulse.beat()
        await asyncio.sleep(0)  # the bus writes at the end of the loop's turn

    # --- what it says of itself ---

    def _identify(self) -> Identity:
        outfit, address = self._models.loaded, self._address
        engine = outfit.engine
        return Identity(
            worker=self._me,
            incarnation=address.incarnation,
            stages=self._stages,
            model=outfit.spec.name,
            host=address.host,
            grpc_address=address.grpc_address,
            modalities=tuple(outfit.encoders),
            slots=engine.slots if engine is not None else self._encoder_batch,
            blocks=engine.blocks if engine is not None else 0,
            block_tokens=outfit.spec.block_tokens,
            pace=outfit.pace,
            kv_bytes_per_token=engine.spec.kv_bytes_per_token if engine is not None else 0,
            host_bytes=self._evicted_bytes,
            loadable=self._models.loadable() if engine is not None else (),
            loading=self._loading,
            load_error=self._load_error,
            overlaps="prefill" in self._stages and self._loaded is not None and self._loaded.intake.overlaps,
        )

    def _gauges(self) -> Gauges:
        engine = self._loaded.engine if self._loaded is not None else None
        return Gauges(
            slots_used=engine.slots_used() if engine is not None else 0,
            blocks_used=engine.blocks_used() if engine is not None else 0,
            epoch=self._commands.epoch,
            waiting_s=self._waiting_s(),
        )

    def _waiting_s(self) -> float:
        """As its profile says, else as it has been."""
        tally, outfit = self._tally, self._models.loaded
        prefill_s = outfit.pace.prefill_token_s or tally.prefill_busy_s / max(1, tally.prefill_tokens)
        encode_s = outfit.encode_token_s or tally.encoded.busy_s / max(1, tally.encoded.tokens)
        return self.holds.prefill_tokens() * prefill_s + self.holds.media_tokens() * encode_s

    def _load(self) -> float:
        """As the governor would read it."""
        return load_of(self._carriers.devices.last, self._waiting_s(), decodes=self._stages == ("decode",))

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
        try:
            async with self._tasks as tasks:
                bus = self._carriers.bus
                heard = [
                    await bus.subscribe(subjects.work(self._me), self._commands.on_message),
                    await bus.subscribe(subjects.peer(self._me), self._commands.on_peer),
                    await bus.subscribe(subjects.CAPS, self._caps.on_message),
                ]
                services = [tasks.create_task(service) for service in self._services()]
                ready()
                await stopping.wait()
                await drain(self._pulse, self.holds, self._commands, drain_s)
                for subscription in heard:
                    await subscription.unsubscribe()
                for service in services:
                    service.cancel()
        finally:
            self._carriers.devices.restore()
        self._pulse.beat(leaving=True)

    def _services(self) -> list[Coroutine[Any, Any, None]]:
        services = [self._pulse.run(), self._pulse.sense(), self._caps.run()]
        if self._encode is not None:
            services.append(self._encode.run())
        if self._requests is not None:
            services += [self._serve(), self._log.run(self._outbox.flush)]
        return services


def _in_loop(loop: asyncio.AbstractEventLoop, call: Callable[[Held], None], held: Held) -> None:
    """From the inference thread."""
    loop.call_soon_threadsafe(call, held)
