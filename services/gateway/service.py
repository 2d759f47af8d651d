"""The gateway's shell: messages of the bus into streams and back, one sweep for all of them, listeners in and out."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from headrace.core.errors import Unavailable
from headrace.core.types import Request
from headrace.mesh import subjects
from headrace.mesh.bus import Bus
from headrace.mesh.faults import reach
from headrace.mesh.journal import Journal
from headrace.v1 import queue_pb2
from headrace.wire import convert
from services.gateway.admission import choice_id, facts_of
from services.gateway.capacity import Cell, cell_of
from services.gateway.control import Control
from services.gateway.live import Facts, Listener, Live
from services.gateway.lookup import Lookup
from services.gateway.metrics import GatewayMetrics
from services.gateway.streams import Streams

SWEEP_S = 0.25  # half of the shortest interval of anything it repeats
HELD_BYTES_MAX = 900_000  # of a reply: NATS takes 1 MB, and the tokens of a whole query take three quarters of it
LOOKUPS_MAX = 64  # RESULTS asked for at once; the rest is named again half a second later


@dataclass(frozen=True, slots=True)
class JournalPort:
    """The journal and RESULTS in core nouns."""

    journal: Journal

    async def append(self, request: Request) -> bool:
        record = convert.request_to_proto(request).SerializeToString()
        return (await self.journal.append(request.id, record, request.traceparent)).duplicate

    async def record(self, request_id: str) -> Request | None:
        data = await self.journal.record(request_id)
        return None if data is None else convert.request_from_proto(queue_pb2.RequestRecord.FromString(data))

    async def result(self, request_id: str) -> convert.Result | None:
        data = await self.journal.result(request_id)
        return None if data is None else convert.result_from_proto(queue_pb2.ResultRecord.FromString(data))


class Gateway:
    def __init__(self, name: str, bus: Bus, journal: JournalPort, metrics: GatewayMetrics) -> None:
        self.name = name
        self.bus = bus
        self.cell: Cell | None = None
        self.closing = False  # what still runs goes on without this gateway
        self._draining = False
        self._idle = asyncio.Event()  # set when the last listener of a draining gateway has left
        self.metrics = metrics
        self.control = Control(name, bus)
        self.streams = Streams(self._on_first_token, self._on_end, metrics.gap)
        self.lookup = Lookup(self.streams, journal, facts_of, lambda live: self.control.attach([live]))
        self.on_sweep: list[Callable[[float], None]] = []
        self.on_first_token: list[Callable[[Live, float], None]] = []
        self.on_end: list[Callable[[Live, float], None]] = []
        self._lookups: set[asyncio.Task[None]] = set()
        metrics.open_streams = self.streams.__len__

    async def start(self) -> None:
        await self.bus.subscribe(subjects.tokens(self.name), lambda data, _: self.on_tokens(data))
        await self.bus.subscribe(subjects.gateway(self.name), lambda data, _: self.on_batch(data))
        await self.bus.subscribe(subjects.STATUS, lambda data, _: self.on_status(data))
        await self.bus.respond(subjects.held(self.name), self.on_held)
        self._sweep_again()

    # --- listeners ---

    def listen(self, live: Live, whole: bool = False) -> Listener:
        return self.streams.listen(live, time.monotonic(), whole)

    def leave(self, listener: Listener, deadline: bool = False) -> None:
        """The response is over. If it was cut short and nobody else listens, the request is cancelled."""
        live = listener.live
        alone = self.streams.unlisten(listener)
        if alone and not live.facts.keep_on_disconnect and not self.closing:
            self.cancel(live, deadline)
        if self._draining and not self.streams.listened():
            self._idle.set()

    def cancel(self, live: Live, deadline: bool = False) -> None:
        if live.cancel_s is None:
            self.streams.cancel(live, time.monotonic(), deadline)
            self.control.cancel([live])

    async def cancel_anywhere(self, request_id: str, tenant: str) -> bool:
        """Cancels a request by its id; the first of several answers to one question takes the others along. False:
        this tenant has no such request."""
        known = await self._cancel_one(request_id, tenant)
        if known is not None:
            for choice in range(1, known.choices):
                await self._cancel_one(choice_id(request_id, choice), tenant)
        return known is not None

    async def _cancel_one(self, request_id: str, tenant: str) -> Facts | None:
        live = self.streams.get(request_id)
        known = live.facts if live is not None else await self.lookup.facts(request_id)
        if known is None or known.tenant != tenant:
            return None
        if live is None:
            self.control.cancel_anywhere(request_id)
        elif live.end is None:
            self.cancel(live)
        return known

    async def drain(self, timeout_s: float) -> None:
        """Open responses may end; after that their requests go on and can be attached to elsewhere."""
        self._draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s if self.streams.listened() else 0.0):
                await self._idle.wait()
        self.closing = True
        self.streams.fail_all(Unavailable("this gateway is shutting down; attach again elsewhere", retry_after_s=0.1))
        for task in self._lookups:
            task.cancel()

    # --- the bus ---

    def on_tokens(self, data: bytes) -> None:
        batch = queue_pb2.TokenBatch.FromString(data)
        now_s = time.monotonic()
        if batch.logprobs:
            told = convert.logprobs_from_proto(batch.logprobs)
            self.streams.logprobs(batch.request_id, batch.attempt, batch.index, told)
        self.streams.tokens(batch.request_id, batch.attempt, batch.index, batch.token, now_s)
        for end in batch.ends:
            key = end.key
            self.streams.end(key.request_id, key.attempt, end.count, convert.end_from_proto(end.end), now_s)

    def on_batch(self, data: bytes) -> None:
        batch = queue_pb2.GatewayBatch.FromString(data)
        now_s = time.monotonic()
        for ended in batch.ended:
            key, end = ended.key, convert.end_from_proto(ended.end)
            # Tokens that the queue manager knows of and this gateway lacks are asked for before the end counts.
            self.streams.end(key.request_id, key.attempt, end.usage.completion_tokens, end, now_s)
        for request_id in batch.moved:
            self.streams.moved(request_id)
        for request_id in batch.look_in_results:
            self._look(request_id)

    def _look(self, request_id: str) -> None:
        if len(self._lookups) < LOOKUPS_MAX:
            task = asyncio.get_running_loop().create_task(self._settle(request_id))
            self._lookups.add(task)
            task.add_done_callback(self._lookups.discard)

    async def _settle(self, request_id: str) -> None:
        try:
            await self.lookup.settle(request_id)
        except Unavailable:
            return  # the journal is away; the stream stays silent and will be asked for again

    def on_status(self, data: bytes) -> None:
        status = queue_pb2.CellStatus.FromString(data)
        self.cell = cell_of(status, self.cell, time.monotonic())
        self.metrics.cell.heard(status)

    async def on_held(self, data: bytes) -> bytes:
        reply = queue_pb2.HeldReply()
        told: list[tuple[queue_pb2.HeldTokens, Live]] = []
        for key in queue_pb2.HeldQuery.FromString(data).fence:
            live = self.streams.fence(key.request_id, key.attempt)
            held = reply.held.add(request_id=key.request_id, known=live is not None)
            if live is not None:
                held.tokens.extend(live.stream.tokens)
                if live.end is not None:
                    held.end.CopyFrom(convert.end_to_proto(live.end))
                if live.stream.logprobs:
                    told.append((held, live))
        room_bytes = HELD_BYTES_MAX - reply.ByteSize() if told else 0
        for held, live in told:
            known = [pair for pair in live.stream.logprobs.items() if pair[0] < live.stream.next_index]
            logprobs = queue_pb2.HeldTokens(logprobs=convert.logprobs_to_proto(known))
            room_bytes -= logprobs.ByteSize()
            if room_bytes >= 0:  # else the token log has them, or they are told as unknown
                held.MergeFrom(logprobs)
        return reply.SerializeToString()

    # --- the sweep ---

    def _sweep_again(self) -> None:
        self.sweep(time.monotonic())
        if not self.closing:
            asyncio.get_running_loop().call_later(SWEEP_S, self._sweep_again)

    def sweep(self, now_s: float) -> None:
        repairs = self.streams.sweep(now_s)
        self.control.cancel(repairs.cancel)
        self.control.attach(repairs.attach)
        self.control.stalled(repairs.stalled)
        self.control.sweep()
        for also in self.on_sweep:
            also(now_s)

    def _on_first_token(self, live: Live, now_s: float) -> None:
        reach("gateway.first_token", live.facts.id)
        if live.received_s:
            self.metrics.began(live, now_s)
            for also in self.on_first_token:
                also(live, now_s)

    def _on_end(self, live: Live, now_s: float) -> None:
        reach("gateway.ended", live.facts.id)
        self.metrics.ended(live, now_s)
        for also in self.on_end:
            also(live, now_s)
