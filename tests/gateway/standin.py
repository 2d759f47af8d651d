"""A cell of one object that speaks the contract: queue manager and worker stand-in over a real NATS.

It answers each request with the tokens its script says, keeps them until resent, and stores results as the real
queue manager does. What it hears is kept for tests to look at.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from headrace.core.types import End, Request, StageSpan, TokenLogprobs
from headrace.core.usage import usage_of
from headrace.mesh import subjects
from headrace.mesh.bus import Bus
from headrace.mesh.jetstream import last_record
from headrace.mesh.journal import Journal
from headrace.v1 import common_pb2, queue_pb2
from headrace.wire import convert

STATUS_S = 0.05


@dataclass(slots=True)
class Script:
    """What happens to a request: these tokens, then this end; wait_s before each token."""

    tokens: Sequence[int] = tuple(b"hello")
    end: End = field(default_factory=lambda: End("stop"))
    wait_s: float = 0.0
    lose: frozenset[int] = frozenset()  # indexes that the bus loses the first time
    lose_end: bool = False
    by_manager: bool = False  # the queue manager ends it, no worker
    logprobs: Mapping[int, TokenLogprobs] = field(default_factory=dict)  # by index


@dataclass(slots=True)
class Running:
    request: Request
    seq: int
    script: Script
    gateway: str
    attempt: int = 1
    sent: int = 0
    task: asyncio.Task[None] | None = None
    end: End | None = None


class StandIn:
    def __init__(self, bus: Bus, journal: Journal) -> None:
        self.bus = bus
        self.journal = journal
        self.script: Callable[[Request], Script] = lambda request: Script()
        self.running: dict[str, Running] = {}
        self.requests: list[Request] = []
        self.heard: list[str] = []  # "cancel <id>", "attach <id>", "stalled <id> <next>"
        self.epoch = 1
        self.servable = True
        self.modalities: tuple[str, ...] = ("image", "audio", "video")
        self.models: tuple[str, ...] = ("profile-tiny",)
        self.queued, self.queue_limit = 0, 4096
        self.wait_s, self.least_wait_s = -1.0, -1.0  # as estimated
        self.silent = False  # answers nothing, as a queue manager between two leaderships
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self.bus.subscribe(subjects.REQUESTS, lambda data, _: self.on_request(data))
        await self.bus.subscribe(subjects.CONTROL, lambda data, _: self.on_control(data))
        self._tasks.append(asyncio.ensure_future(self._statuses()))

    async def stop(self) -> None:
        for task in [*self._tasks, *(r.task for r in self.running.values() if r.task)]:
            task.cancel()

    async def _statuses(self) -> None:
        while True:
            if self.bus.up and not self.silent:
                self.bus.send(subjects.STATUS, self.status().SerializeToString())
            await asyncio.sleep(STATUS_S)

    def status(self) -> queue_pb2.CellStatus:
        load = queue_pb2.ClassStatus(
            slo_class="interactive",
            queued=self.queued,
            queue_limit=self.queue_limit,
            oldest_wait_s=2.5,
            estimated_wait_s=self.wait_s,
            estimated_wait_least_s=self.least_wait_s,
        )
        models = [
            queue_pb2.ModelStatus(model=model, servable=self.servable, modalities=self.modalities)
            for model in self.models
        ]
        return queue_pb2.CellStatus(epoch=self.epoch, classes=[load], models=models)

    # --- the bus ---

    def on_request(self, data: bytes) -> None:
        request = convert.request_from_proto(queue_pb2.RequestRecord.FromString(data))
        if request.id in self.running:
            return
        self.requests.append(request)
        running = Running(request, 0, self.script(request), request.gateway)
        self.running[request.id] = running
        if not self.silent:
            running.task = asyncio.ensure_future(self._run(running))

    def on_control(self, data: bytes) -> None:
        batch = queue_pb2.ControlBatch.FromString(data)
        self.heard += [f"cancel {c.request_id}" + (" deadline" if c.deadline else "") for c in batch.cancel]
        self.heard += [f"attach {a.request_id}" for a in batch.attach]
        self.heard += [f"stalled {s.request_id} {s.next_index}" for s in batch.stalled]
        if self.silent:
            return
        for cancel in batch.cancel:
            self._tasks.append(asyncio.ensure_future(self._cancel(cancel.request_id, cancel.deadline)))
        for attach in batch.attach:
            self._attach(attach.request_id, attach.gateway)
        for stalled in batch.stalled:
            self._resend(stalled.request_id, stalled.next_index)

    def _attach(self, request_id: str, gateway: str) -> None:
        running = self.running.get(request_id)
        if running is None:
            self._to_gateway(gateway, queue_pb2.GatewayBatch(look_in_results=[request_id]))
            return
        if running.gateway != gateway:
            self._to_gateway(running.gateway, queue_pb2.GatewayBatch(moved=[request_id]))
        running.gateway = gateway
        self._resend(request_id, 0)

    def _resend(self, request_id: str, next_index: int) -> None:
        running = self.running.get(request_id)
        if running is None:
            self._to_gateway("gw-a", queue_pb2.GatewayBatch(look_in_results=[request_id]))
            self._to_gateway("gw-b", queue_pb2.GatewayBatch(look_in_results=[request_id]))
            return
        self.send(running, range(next_index, running.sent), running.end)

    async def _cancel(self, request_id: str, deadline: bool) -> None:
        running = self.running.get(request_id)
        if running is None or running.end is not None:
            return
        if running.task is not None:
            running.task.cancel()
        await self.finish(running, End("deadline" if deadline else "cancelled"))

    # --- the worker ---

    async def _run(self, running: Running) -> None:
        script = running.script
        for index in range(len(script.tokens)):
            await asyncio.sleep(script.wait_s)
            running.sent = index + 1
            if index not in script.lose:
                self.send(running, [index], None)
        await self.finish(running, script.end)

    async def finish(self, running: Running, end: End) -> None:
        request = running.request
        tokens = list(running.script.tokens[: running.sent])
        usage = usage_of(request.prompt, 0, len(tokens))
        timeline = (StageSpan("queue", 1.0, 1.5, "qm-0"), StageSpan("prefill", 1.5, 2.0, "w"))
        running.end = replace(end, usage=usage, timeline=end.timeline or timeline)
        if running.script.by_manager:
            ended = queue_pb2.GatewayEnd(
                key=common_pb2.Attempt(request_id=request.id, attempt=running.attempt),
                end=convert.end_to_proto(running.end),
            )
            self._to_gateway(running.gateway, queue_pb2.GatewayBatch(ended=[ended]))
        elif not running.script.lose_end:
            self.send(running, [], running.end)
        told = tuple([(index, one) for index, one in running.script.logprobs.items() if index < running.sent])
        record = convert.result_to_proto(request, running.attempt, tokens, running.end, 0.0, told)
        await self.journal.store_result(request.id, record.SerializeToString())
        if (found := await last_record(self.bus, subjects.STREAM_REQUESTS, subjects.request(request.id))) is not None:
            await self.journal.delete([found.seq])
        self.running.pop(request.id, None)

    def send(self, running: Running, indexes: Sequence[int], end: End | None, attempt: int = 0) -> None:
        attempt = attempt or running.attempt
        request_id = running.request.id
        batch = queue_pb2.TokenBatch(
            worker="w",
            request_id=[request_id] * len(indexes),
            attempt=[attempt] * len(indexes),
            index=indexes,
            token=[running.script.tokens[index] for index in indexes],
        )
        known = running.script.logprobs
        batch.logprobs.extend(convert.logprobs_to_proto([(r, known[i]) for r, i in enumerate(indexes) if i in known]))
        if end is not None:
            key = common_pb2.Attempt(request_id=request_id, attempt=attempt)
            batch.ends.add(key=key, count=running.sent, end=convert.end_to_proto(end))
        self.bus.send(subjects.tokens(running.gateway), batch.SerializeToString())

    def _to_gateway(self, gateway: str, batch: queue_pb2.GatewayBatch) -> None:
        self.bus.send(subjects.gateway(gateway), batch.SerializeToString())
