"""The journal: accepted requests (REQUESTS) and their ends (RESULTS) in JetStream file streams.

An append that returns is on the server's disk journal; one that raises Uncertain may be there all the same.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from headrace.core.errors import Unavailable
from headrace.mesh import subjects
from headrace.mesh.bus import Bus
from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup, BusDown, NoResponder, Uncertain
from headrace.mesh.follower import Follower, Record
from headrace.mesh.jetstream import (
    API_WAIT_S,
    START_S,
    ApiFailure,
    PubAck,
    Stored,
    StreamSpec,
    WrongLastSequence,
    again,
    api,
    check_server,
    ensure_stream,
    is_deleted,
    last_record,
    leaders_record,
    store,
)
from headrace.mesh.logs import get_logger

__all__ = ["Appended", "Follower", "Journal", "Record"]

APPEND_AGAIN_S = 7.5  # a new leader of a stream is elected within it; whoever waits for acceptance longer has given up
RESULT_AGAIN_S = 60.0  # an end is worth waiting for; then the caller decides
DELETES_AT_ONCE = 256  # API calls in flight: the server queues 10,000 of all clients together

_log = get_logger("journal")


@dataclass(frozen=True, slots=True)
class Appended:
    seq: int
    duplicate: bool  # the id was there already (or its record is within the last two minutes): compare, then attach


class Journal:
    def __init__(self, bus: Bus, settings: Settings) -> None:
        replicas = settings.journal_replicas
        self._bus = bus
        self._replicated = replicas > 1
        self._streams = (
            StreamSpec(
                subjects.STREAM_REQUESTS,
                subjects.REQUESTS,
                settings.journal_bytes,
                settings.journal_age_s,
                "new",
                replicas,
            ),
            StreamSpec(
                subjects.STREAM_RESULTS,
                subjects.RESULTS,
                settings.results_bytes,
                settings.results_age_s,
                "old",
                replicas,
            ),
        )
        self._ensuring: asyncio.Task[None] | None = None

    @staticmethod
    async def open(bus: Bus, settings: Settings) -> "Journal":
        """Makes or updates the streams. Raises BadSetup for an old server, no JetStream, or too few servers."""
        check_server(bus.server_info)
        journal = Journal(bus, settings)
        try:
            await again(journal.ensure, START_S)
        except NoResponder as error:
            need = f"HEADRACE_JOURNAL_REPLICAS={settings.journal_replicas} takes as many nats-servers"
            raise BadSetup(f"{error.message}; {need}") from error
        bus.watch(journal._on_state)
        return journal

    async def ensure(self) -> None:
        for spec in self._streams:
            try:
                await ensure_stream(self._bus, spec)
            except ApiFailure as error:
                raise BadSetup(f"stream {spec.name}: {error.description}; see HEADRACE_JOURNAL_BYTES") from error

    def _on_state(self, up: bool) -> None:
        """A server that lost its storage comes back without streams."""
        if self._ensuring is not None:
            self._ensuring.cancel()
            self._ensuring = None
        if up:
            self._ensuring = asyncio.get_running_loop().create_task(self._restore())

    async def _restore(self) -> None:
        try:
            await again(self.ensure, RESULT_AGAIN_S)
        except (Unavailable, BadSetup) as error:
            _log.error("streams_not_restored", error=str(error))

    # --- requests ---

    async def append(self, request_id: str, data: bytes, traceparent: str = "") -> Appended:
        """Refused as a duplicate while a record of this id is live, and for two minutes after any append of it.

        Raises JournalFull, BusDown (not sent), Uncertain (sent, nobody knows: cancel it or ask again).
        """
        subject = subjects.request(request_id)
        head = _head(request_id, traceparent)
        try:
            ack = await self._store(subject, data, head, APPEND_AGAIN_S)
        except WrongLastSequence as error:
            return Appended(error.last_seq, duplicate=True)
        return Appended(ack.seq, ack.duplicate)

    async def record(self, request_id: str) -> bytes | None:
        """The live journal record of a request; None once it has been deleted."""
        return await self._read(subjects.STREAM_REQUESTS, subjects.request(request_id))

    async def delete(self, seqs: Sequence[int]) -> None:
        """By sequence, without secure erase; a record that is gone already is fine."""
        for start in range(0, len(seqs), DELETES_AT_ONCE):
            left = list(seqs[start : start + DELETES_AT_ONCE])
            await again(partial(self._delete_left, left), RESULT_AGAIN_S)

    async def _delete_left(self, left: list[int]) -> None:
        """Takes from `left` what is gone."""
        calls = [self._bus.call(_DELETE, b'{"seq":%d,"no_erase":true}' % seq, timeout_s=API_WAIT_S) for seq in left]
        ends = await asyncio.gather(*calls, return_exceptions=True)
        left[:] = [
            seq
            for seq, end in zip(left, ends, strict=True)
            if isinstance(end, BaseException) or not is_deleted(end.data)
        ]
        if left:
            raise Uncertain(f"{len(left)} journal records are not deleted yet", retry_after_s=1.0)

    def follow(
        self, on_records: Callable[[list[Record]], None], on_caught_up: Callable[[], None] | None = None
    ) -> Follower:
        """All records from the first, in order, then the new ones as they come; survives restarts of NATS."""
        return Follower(self._bus, subjects.STREAM_REQUESTS, self.ensure, on_records, on_caught_up)

    async def live_records(self) -> int:
        answer = await api(self._bus, f"STREAM.INFO.{subjects.STREAM_REQUESTS}", {})
        return int(answer["state"]["messages"])

    # --- results ---

    async def store_result(self, request_id: str, data: bytes) -> bool:
        """False: this request's end had been stored before; the first one counts. Raises Unavailable after a minute."""
        head = _head(request_id, "")
        try:
            ack = await self._store(subjects.result(request_id), data, head, RESULT_AGAIN_S)
        except WrongLastSequence:
            return False
        return not ack.duplicate

    async def result(self, request_id: str) -> bytes | None:
        return await self._read(subjects.STREAM_RESULTS, subjects.result(request_id))

    async def _read(self, stream: str, subject: str) -> bytes | None:
        """A replica's word for what is there; that there is nothing is the leader's to say."""
        found: Stored | None = await last_record(self._bus, stream, subject)
        if found is None and self._replicated:
            found = await leaders_record(self._bus, stream, subject)
        return found.data if found else None

    async def _store(self, subject: str, data: bytes, head: bytes, again_s: float) -> PubAck:
        """A lost acknowledgement or a missing stream: once more. Never sent at all: BusDown at once."""
        try:
            return await store(self._bus, subject, data, head)
        except (Uncertain, NoResponder) as first:
            try:
                return await again(partial(self._ensure_and_store, subject, data, head), again_s)
            except (BusDown, NoResponder) as last:
                raise type(first)(f"{first.message}; then {last.message}", retry_after_s=1.0) from last

    async def _ensure_and_store(self, subject: str, data: bytes, head: bytes) -> PubAck:
        try:
            await self.ensure()
            return await store(self._bus, subject, data, head)
        except BadSetup as error:
            raise Unavailable(f"the journal is not there: {error}", retry_after_s=1.0) from error


_DELETE = f"$JS.API.STREAM.MSG.DELETE.{subjects.STREAM_REQUESTS}"


def _head(request_id: str, traceparent: str) -> bytes:
    """Refused twice over: by id within the dedupe window, by subject while a record is there (costs nothing)."""
    lines = "NATS/1.0\r\nNats-Msg-Id: " + request_id + "\r\nNats-Expected-Last-Subject-Sequence: 0"
    if traceparent:
        lines += "\r\ntraceparent: " + traceparent
    return (lines + "\r\n\r\n").encode()
