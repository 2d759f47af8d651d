"""Small records that outlive every process: the newest of each id in a JetStream stream, written optimistically.

Each process follows the stream and so knows all records, a moment later than their writer. A record whose sequence
number has moved on has another writer: that is how two processes never own one thing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.mesh import subjects
from headrace.mesh.bus import Bus
from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup, Uncertain
from headrace.mesh.follower import Follower, Record
from headrace.mesh.jetstream import (
    START_S,
    ApiFailure,
    StreamSpec,
    WrongLastSequence,
    again,
    ensure_stream,
    leaders_record,
    store,
)

BYTES_MAX = 64 << 20  # records of half a kilobyte: a hundred thousand files and batches
KEPT_S = 2 * 86_400.0  # longer than what the records themselves say, so that a process, not the stream, forgets first


class Stale(Exception):
    """Somebody else has written this record since."""


@dataclass(frozen=True, slots=True)
class Entry:
    record_id: str
    seq: int
    data: bytes


class Catalogue:
    def __init__(self, bus: Bus, settings: Settings, on_entries: Callable[[Sequence[Entry]], None]) -> None:
        """on_entries: what came, those of this process's own writing too."""
        self._bus = bus
        self._on_entries = on_entries
        self._spec = StreamSpec(
            subjects.STREAM_BATCHES,
            subjects.BATCHES,
            BYTES_MAX,
            settings.batch_kept_s + KEPT_S,
            "new",
            settings.journal_replicas,
            max_msgs_per_subject=1,
        )
        self._follower: Follower | None = None
        self.complete = False  # all records that there were at the start have been seen

    async def start(self) -> None:
        """Raises BadSetup: the server has no room for the stream."""
        try:
            await again(self._ensure, START_S)
        except ApiFailure as error:
            raise BadSetup(f"stream {self._spec.name}: {error.description}") from error
        self._follower = Follower(self._bus, self._spec.name, self._ensure, self._on_records, self._caught_up)

    async def _ensure(self) -> None:
        await ensure_stream(self._bus, self._spec)

    def _caught_up(self) -> None:
        self.complete = True

    def _on_records(self, records: list[Record]) -> None:
        self._on_entries([Entry(record.request_id, record.seq, record.data) for record in records])

    async def stop(self) -> None:
        if self._follower is not None:
            await self._follower.stop()

    async def write(self, record_id: str, data: bytes, after_seq: int) -> int:
        """The new sequence number. after_seq: of the record that this one replaces; 0: there is none.

        Raises:
            Stale: there is a newer one.
            Unavailable: nobody knows whether it was written, or it was not.
        """
        subject = subjects.batch(record_id)
        head = b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: %d\r\n\r\n" % after_seq
        try:
            return (await store(self._bus, subject, data, head)).seq
        except WrongLastSequence as error:
            raise Stale(record_id) from error
        except Uncertain:
            newest = await self.read(record_id)
            if newest is None or newest.data != data or newest.seq <= after_seq:
                raise
            return newest.seq

    async def read(self, record_id: str) -> Entry | None:
        """Straight from the stream. Raises Unavailable."""
        found = await leaders_record(self._bus, self._spec.name, subjects.batch(record_id))
        return Entry(record_id, found.seq, found.data) if found else None
