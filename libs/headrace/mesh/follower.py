"""Reads a stream from its first record on, in order, without gaps, for ever.

An ephemeral push consumer without acknowledgements, made anew from the last record seen plus one whenever a
sequence gap, a missed heartbeat, a reconnect or the server says so.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from nats.nuid import NUID

from headrace.core.errors import Unavailable
from headrace.mesh import nats_wire
from headrace.mesh.bus import Bus, Subscription
from headrace.mesh.errors import BadSetup
from headrace.mesh.jetstream import ApiFailure, api, leaders_record
from headrace.mesh.logs import get_logger

_log = get_logger("journal")

HEARTBEAT_S = 1.0  # the server speaks at least this often
SILENCE_S = 3.0  # three heartbeats missed
AGAIN_S = 0.2  # between tries to make the consumer, and between looks at what a replica lacks
FORGET_S = 30.0  # the server drops a consumer that nobody listens to


@dataclass(frozen=True, slots=True)
class Record:
    seq: int
    request_id: str
    data: bytes
    traceparent: str


class Follower:
    def __init__(
        self,
        bus: Bus,
        stream: str,
        ensure: Callable[[], Awaitable[None]],
        on_records: Callable[[list[Record]], None],
        on_caught_up: Callable[[], None] | None = None,
        subject: str = "",
    ) -> None:
        """on_records gets what one loop tick brought; on_caught_up is called once, after the last old record: the
        last that the stream's leader has, since the consumer may sit at a replica that lacks some.
        subject: of the stream's records those alone."""
        self._bus = bus
        self._stream = stream
        self._subject = subject
        self._ensure = ensure
        self._on_records = on_records
        self._on_caught_up = on_caught_up
        self._next_seq = 0  # 0: the first there is
        self._next_delivery = 1
        self._heard_s = 0.0
        self._batch: list[Record] = []
        self._at_end = False
        self._broken = asyncio.Event()
        self._confirming: asyncio.Task[None] | None = None
        self._subscription: Subscription | None = None
        self._loop = asyncio.get_running_loop()
        bus.watch(self._on_state)
        self._task = self._loop.create_task(self._run(), name="journal-follower")

    async def stop(self) -> None:
        self._bus.unwatch(self._on_state)
        tasks = [self._task] if self._confirming is None else [self._task, self._confirming]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._unsubscribe()

    def _on_state(self, up: bool) -> None:
        self._broken.set()

    async def _run(self) -> None:
        while True:
            self._broken.clear()
            if self._bus.up and not await self._start():
                await asyncio.sleep(AGAIN_S)
                continue
            await self._until_broken()

    async def _start(self) -> bool:
        try:
            await self._ensure()
            await self._make_consumer()
        except (Unavailable, ApiFailure, BadSetup) as error:  # the server may still be opening its streams
            _log.warning("journal_reader_waits", error=str(error))
            return False
        return True

    async def _until_broken(self) -> None:
        while not self._broken.is_set():
            try:
                async with asyncio.timeout(HEARTBEAT_S):  # wait_for of Python 3.11 can swallow a cancellation
                    await self._broken.wait()
            except TimeoutError:
                if self._bus.up and time.monotonic() - self._heard_s > SILENCE_S:
                    _log.warning("journal_reader_silent", next_seq=self._next_seq)
                    return

    async def _make_consumer(self) -> None:
        await self._unsubscribe()
        name = NUID().next().decode()
        inbox = self._bus.new_inbox()  # a new one each time: a late message of the old consumer is nobody's
        self._next_delivery = 1
        self._heard_s = time.monotonic()
        self._subscription = await self._bus.subscribe_raw(inbox, self._on_message)
        body = {"stream_name": self._stream, "config": self._config(name, inbox)}
        answer = await api(self._bus, f"CONSUMER.CREATE.{self._stream}.{name}", body)
        if answer["num_pending"] == 0 and self._next_delivery == 1:
            self._at_end = True
            self._hand_over()

    def _config(self, name: str, inbox: str) -> dict[str, Any]:
        start: dict[str, Any] = {"deliver_policy": "all"}
        if self._next_seq:
            start = {"deliver_policy": "by_start_sequence", "opt_start_seq": self._next_seq}
        if self._subject:
            start["filter_subject"] = self._subject
        return start | {
            "name": name,
            "deliver_subject": inbox,
            "ack_policy": "none",
            "max_deliver": 1,
            "flow_control": True,
            "idle_heartbeat": int(HEARTBEAT_S * 1e9),
            "inactive_threshold": int(FORGET_S * 1e9),
            "mem_storage": True,
            "num_replicas": 1,
        }

    async def _unsubscribe(self) -> None:
        if self._subscription is not None:
            await self._subscription.unsubscribe()
            self._subscription = None

    def _on_message(self, subject: bytes, reply: bytes, head: bytes, data: bytes) -> None:
        self._heard_s = time.monotonic()
        if not reply.startswith(b"$JS.ACK."):
            self._on_control(reply, head)
            return
        # $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<delivered>.<seq>.<delivery>.<time>.<pending>[.<token>]
        words = reply.split(b".")
        at = 5 if len(words) == 9 else 7
        seq, delivery, pending = int(words[at]), int(words[at + 1]), int(words[at + 3])
        if delivery != self._next_delivery:
            self._lost(f"delivery {delivery} instead of {self._next_delivery}")
            return
        self._next_delivery += 1
        self._next_seq = seq + 1
        self._at_end = pending == 0
        if not self._batch:
            self._loop.call_soon(self._hand_over)
        request_id = subject[subject.rfind(b".") + 1 :].decode()
        traceparent = nats_wire.header(head, b"traceparent").decode()
        self._batch.append(Record(seq, request_id, data, traceparent))

    def _hand_over(self) -> None:
        batch, self._batch = self._batch, []
        if batch:
            self._on_records(batch)
        if self._at_end and self._on_caught_up is not None and self._confirming is None:
            self._confirming = self._loop.create_task(self._confirm(self._on_caught_up), name="journal-end")

    async def _confirm(self, caught_up: Callable[[], None]) -> None:
        last_seq: int | None = None
        while True:
            try:
                if last_seq is None:
                    last_seq = await self._last_seq()
                if not await self._lacks(last_seq):
                    break
            except (Unavailable, ApiFailure) as error:
                _log.warning("journal_end_unknown", error=str(error))
            await asyncio.sleep(AGAIN_S)
        self._hand_over()
        caught_up()

    async def _last_seq(self) -> int:
        return int((await api(self._bus, f"STREAM.INFO.{self._stream}", {}))["state"]["last_seq"])

    async def _lacks(self, last_seq: int) -> bool:
        if self._next_seq > last_seq:
            return False
        found = await leaders_record(self._bus, self._stream, self._subject or ">", max(1, self._next_seq))
        return found is not None and found.seq <= last_seq

    def _on_control(self, reply: bytes, head: bytes) -> None:
        if nats_wire.status(head) != 100:
            self._lost(head.decode(errors="replace").strip())
            return
        resume = reply or nats_wire.header(head, b"Nats-Consumer-Stalled")
        if resume:
            self._bus.send(resume.decode(), b"")  # flow control: all before it has been taken
        sent = nats_wire.header(head, b"Nats-Last-Consumer")
        if sent and int(sent) >= self._next_delivery:
            self._lost(f"the server has sent {int(sent)}, {self._next_delivery - 1} arrived")

    def _lost(self, why: str) -> None:
        _log.warning("journal_reader_gap", why=why, next_seq=self._next_seq)
        self._next_delivery = -1  # nothing of this consumer counts any more
        self._broken.set()
