"""What the queue manager's tests share: its process, and a gateway and a worker that speak its protobuf for it."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from headrace.core.types import Prompt, Request, Sampling
from headrace.mesh import subjects
from headrace.mesh.bus import Bus
from headrace.mesh.config import Settings
from headrace.mesh.journal import Journal
from headrace.v1 import common_pb2, queue_pb2
from headrace.wire.convert import request_to_proto

MODEL = "profile-tiny"


def make_request(number: int, **changes: object) -> Request:
    now_s = time.time()
    fields = {
        "id": f"{number:032x}",
        "tenant": "t",
        "model": MODEL,
        "slo_class": "batch-2",
        "accepted_s": now_s,
        "deadline_s": now_s + 600.0,
        "prompt": Prompt(tuple(range(64))),
        "media": (),
        "sampling": Sampling(4),
        "gateway": "gateway-t",
    } | changes
    return Request(**fields)  # type: ignore[arg-type]


class Manager:
    """`python -m services.queue_manager` as a child process."""

    def __init__(self, settings: Settings, name: str = "qm-0") -> None:
        self.name = name
        self._env = os.environ | {
            "HEADRACE_NATS_URL": settings.nats_url,
            "HEADRACE_REDIS_URL": settings.redis_url,
            "HEADRACE_DATA_DIR": str(settings.data_dir),
            "HEADRACE_MODEL": MODEL,
        }
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, **env: str) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "services.queue_manager", "--id", self.name),
            env=self._env | env,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return await self.process.wait()


class Cell:
    """Everybody else: a gateway that listens and a worker that ends what it is sent, unless told to hold it."""

    def __init__(self, bus: Bus, journal: Journal, settings: Settings) -> None:
        self.bus = bus
        self.journal = journal
        self.settings = settings
        self.status = queue_pb2.CellStatus()
        self.told: list[queue_pb2.GatewayBatch] = []
        self.asked: list[queue_pb2.HeldQuery] = []
        self.prefills: dict[str, queue_pb2.PrefillCommand] = {}
        self.sent: dict[str, int] = {}  # request id -> how often it was dispatched
        self.released: set[str] = set()
        self.cancelled: set[str] = set()
        self.held: dict[str, queue_pb2.HeldTokens] = {}
        self.holding = False
        self.beating = True
        self.slots = 64
        self.epochs: list[int] = []

    async def listen(self) -> None:
        await self.bus.subscribe(subjects.STATUS, self._on_status)
        await self.bus.subscribe(subjects.gateway("gateway-t"), self._on_gateway)
        await self.bus.subscribe(subjects.work("worker-t"), self._on_work)
        await self.bus.respond(subjects.held("gateway-t"), self._on_held)

    def _on_status(self, data: bytes, _headers: Mapping[str, str]) -> None:
        self.status = queue_pb2.CellStatus.FromString(data)

    def _on_gateway(self, data: bytes, _headers: Mapping[str, str]) -> None:
        self.told.append(queue_pb2.GatewayBatch.FromString(data))

    async def _on_held(self, data: bytes) -> bytes:
        query = queue_pb2.HeldQuery.FromString(data)
        self.asked.append(query)
        return queue_pb2.HeldReply(
            held=[self.held[key.request_id] for key in query.fence if key.request_id in self.held]
        ).SerializeToString()

    def _on_work(self, data: bytes, _headers: Mapping[str, str]) -> None:
        batch = queue_pb2.WorkBatch.FromString(data)
        self.epochs.append(batch.epoch)
        for prefill in batch.prefill:
            request_id = prefill.key.request_id
            self.sent[request_id] = self.sent.get(request_id, 0) + 1
            self.prefills[request_id] = prefill
            if not self.holding:
                self.end(request_id)
        self.cancelled.update(key.request_id for key in batch.cancel)
        for key in batch.release:
            self.released.add(key.request_id)
            self.prefills.pop(key.request_id, None)

    def end(self, request_id: str) -> None:
        ended = queue_pb2.Ended(
            key=self.prefills[request_id].key,
            end=common_pb2.End(reason=common_pb2.FINISH_REASON_LENGTH),
            tokens=[1, 2, 3, 4],
        )
        batch = queue_pb2.EventBatch(worker="worker-t", incarnation="w1", ended=[ended])
        self.bus.send(subjects.EVENTS, batch.SerializeToString())

    async def beat(self) -> None:
        while True:
            if self.beating:
                self.bus.send(subjects.HEARTBEAT, self.heartbeat().SerializeToString())
            await asyncio.sleep(0.25)

    def heartbeat(self) -> queue_pb2.Heartbeat:
        holds = [
            queue_pb2.Hold(key=prefill.key, state=queue_pb2.HOLD_STATE_DECODE, next_index=1)
            for prefill in self.prefills.values()
        ]
        return queue_pb2.Heartbeat(
            worker="worker-t",
            incarnation="w1",
            stages=["prefill", "decode"],
            model=MODEL,
            slots=self.slots,
            blocks=100_000,
            block_tokens=16,
            holds=holds,
            sent_s=time.time(),
        )

    async def accept(self, *requests: Request) -> None:
        appends = (self.journal.append(r.id, request_to_proto(r).SerializeToString()) for r in requests)
        await asyncio.gather(*appends)

    def control(self, **asked: object) -> None:
        batch = queue_pb2.ControlBatch(gateway="gateway-t", **{name: [one] for name, one in asked.items()})  # type: ignore[arg-type]
        self.bus.send(subjects.CONTROL, batch.SerializeToString())

    def running(self) -> int:
        return sum(load.running for load in self.status.classes)

    def queued(self) -> int:
        return sum(load.queued for load in self.status.classes)


async def until(what: Callable[[], object], timeout_s: float = 10.0) -> float:
    """Waits for it; returns how long it took."""
    begun_s = time.monotonic()
    while not what():
        assert time.monotonic() - begun_s < timeout_s, "it did not come"
        await asyncio.sleep(0.01)
    return time.monotonic() - begun_s


async def servable(mates: Cell) -> None:
    """A manager's process has begun: on a busy machine that takes longer than anything it does afterwards."""
    await until(lambda: any(model.servable for model in mates.status.models), 30.0)


@asynccontextmanager
async def cell(nats_url: str, redis_url: str, data_dir: Path) -> AsyncIterator[Cell]:
    settings = Settings(nats_url=nats_url, redis_url=redis_url, data_dir=data_dir)
    bus = await Bus.connect(nats_url, "cellmates")
    mates = Cell(bus, await Journal.open(bus, settings), settings)
    await mates.listen()
    beating = asyncio.create_task(mates.beat())
    yield mates
    beating.cancel()
    await bus.close()
