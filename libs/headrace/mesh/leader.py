"""Who leads a cell: the writer of the newest record in LEADER, by optimistic writes.

The take-over's sequence number is the epoch: it only grows, over lost storage and FLUSHALL too. A leader
renews; a contender takes over once the record has not changed for LEASE_S on its own clock, NATS outages not
counted. A paused leader learns at its next renewal that it has lost; until then its epoch betrays it.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from headrace.core.errors import Unavailable
from headrace.mesh import subjects
from headrace.mesh.bus import Bus
from headrace.mesh.errors import NoResponder
from headrace.mesh.jetstream import ApiFailure, StreamSpec, WrongLastSequence, ensure_stream, leaders_record, store
from headrace.mesh.logs import get_logger

log = get_logger("leader")

LEASE_S = 2.0  # a dead leader is replaced about this late; as long as a worker's lease
RENEW_S = 0.5
LOOK_S = 0.25
WRITE_S = 1.0  # a renewal that went down with a server is written again while the lease lasts
STREAM_BYTES = 1 << 20
# Renewals take two sequence numbers a second: a stream made anew starts ahead of all that came before.
SEQUENCES_PER_S = 10


class Record(msgspec.Struct):
    holder: str
    incarnation: str
    released: bool = False


@dataclass(frozen=True, slots=True)
class _Seen:
    seq: int  # 0: no record
    record: Record | None


class Leadership:
    def __init__(self, bus: Bus, holder: str, incarnation: str, lost: Callable[[], None], replicas: int = 1) -> None:
        """holder: process id; a new process of the same id need not wait for its predecessor's lease.
        lost: called once when somebody else has taken over; the process must end."""
        self.epoch = 0
        self._bus = bus
        self._record = Record(holder, incarnation)
        self._lost = lost
        self._spec = StreamSpec(
            subjects.STREAM_LEADER,
            subjects.LEADER,
            STREAM_BYTES,
            0.0,
            "old",
            replicas,
            max_msgs_per_subject=1,
        )
        self._last_seq = 0
        self._renewing: asyncio.Task[None] | None = None

    async def acquire(self) -> int:
        """Waits to lead; returns the epoch. From then on it renews in the background."""
        seen, seen_s = _Seen(0, None), time.monotonic()
        while True:
            try:
                newest = await self._look()
            except (Unavailable, ApiFailure):
                seen_s = time.monotonic()  # an outage is nobody's silence
                await asyncio.sleep(LOOK_S)
                continue
            if newest.seq != seen.seq:
                seen, seen_s = newest, time.monotonic()
            if self._may_take(seen, time.monotonic() - seen_s) and await self._take(seen):
                return self.epoch
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> _Seen:
        await ensure_stream(self._bus, self._spec, sequences_per_s=SEQUENCES_PER_S)
        found = await leaders_record(self._bus, subjects.STREAM_LEADER, subjects.LEADER)
        return _Seen(found.seq, msgspec.json.decode(found.data, type=Record)) if found else _Seen(0, None)

    def _may_take(self, seen: _Seen, silent_s: float) -> bool:
        record = seen.record
        if record is None or record.released or record.holder == self._record.holder:
            return True
        return silent_s > LEASE_S

    async def _take(self, seen: _Seen) -> bool:
        try:
            await self._write(self._record, seen.seq)
        except (WrongLastSequence, ApiFailure, Unavailable):
            return False  # somebody was faster, or nobody knows: look again
        self.epoch = self._last_seq
        self._renewing = asyncio.get_running_loop().create_task(self._renew(), name="leader-renewal")
        log.info("leads", epoch=self.epoch, holder=self._record.holder)
        return True

    async def _write(self, record: Record, after_seq: int) -> None:
        head = b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: %d\r\n\r\n" % after_seq
        ack = await store(self._bus, subjects.LEADER, msgspec.json.encode(record), head, WRITE_S)
        self._last_seq = ack.seq

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                await self._write(self._record, self._last_seq)
            except (WrongLastSequence, NoResponder):  # NoResponder: the stream is gone, and the claim with it
                if not await self._mine_after_all():
                    break
            except (Unavailable, ApiFailure) as error:
                log.warning("renewal_waits", why=str(error))  # nobody can take over either
        log.error("leadership_lost", epoch=self.epoch)
        self._lost()

    async def _mine_after_all(self) -> bool:
        """A renewal whose acknowledgement was lost is newer than what this process knows of."""
        while True:
            try:
                newest = await self._look()
            except (Unavailable, ApiFailure):
                await asyncio.sleep(LOOK_S)
                continue
            mine = newest.record is not None and newest.record.incarnation == self._record.incarnation
            if mine:
                self._last_seq = newest.seq
            return mine

    async def release(self) -> None:
        """A leader that leaves: a standby takes over at once."""
        if self._renewing is None:
            return
        self._renewing.cancel()
        await asyncio.gather(self._renewing, return_exceptions=True)
        self._renewing = None
        try:
            await self._write(Record(self._record.holder, self._record.incarnation, released=True), self._last_seq)
        except (Unavailable, ApiFailure):
            log.info("left_without_release")  # the lease ends by itself
