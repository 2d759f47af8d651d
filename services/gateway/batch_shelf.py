"""All files and batches that this gateway knows of, by tenant: the catalogue's newest records, in memory.

What another gateway wrote a moment ago may not have come yet; whoever misses something asks the stream itself.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from headrace.core.errors import NotFound
from headrace.mesh.bus import Bus
from headrace.mesh.catalogue import Catalogue, Entry
from headrace.mesh.config import Settings
from headrace.mesh.logs import get_logger
from services.gateway.batch_records import BatchRecord, FileRecord, Kept, decode, encode

log = get_logger("batches")


@dataclass(frozen=True, slots=True)
class Shelved:
    seq: int
    record: Kept
    heard_s: float  # monotonic: when this process learnt of it


T = TypeVar("T", FileRecord, BatchRecord)


class Shelf:
    def __init__(self, bus: Bus, settings: Settings) -> None:
        self._known: dict[str, Shelved] = {}
        self._kept_s = settings.batch_kept_s
        self._bus = bus
        self.catalogue = Catalogue(bus, settings, self._on_entries)
        self.on_batch: Callable[[BatchRecord], None] = lambda record: None

    async def start(self) -> None:
        await self.catalogue.start()
        self._bus.watch(self._on_state)

    async def stop(self) -> None:
        self._bus.unwatch(self._on_state)
        await self.catalogue.stop()

    def _on_state(self, up: bool) -> None:
        """An outage is nobody's silence."""
        now_s = time.monotonic()
        for record_id, shelved in self._known.items():
            self._known[record_id] = Shelved(shelved.seq, shelved.record, now_s)

    def _on_entries(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._take(entry)

    def _take(self, entry: Entry) -> Shelved | None:
        """What is known of it from now on."""
        known = self._known.get(entry.record_id)
        if known is not None and known.seq >= entry.seq:
            return known
        try:
            record = decode(entry.data)
        except msgspec.DecodeError as error:
            log.error("record_not_readable", record=entry.record_id, error=str(error))
            return None
        shelved = self._known[entry.record_id] = Shelved(entry.seq, record, time.monotonic())
        if isinstance(record, BatchRecord):
            self.on_batch(record)
        return shelved

    # --- reading ---

    async def get(self, kind: type[T], record_id: str, tenant: str, field: str) -> tuple[int, T]:
        """With its sequence number. Raises NotFound: this tenant has none; Unavailable."""
        shelved = self._known.get(record_id) or await self.fresh(record_id)
        record = shelved.record if shelved is not None else None
        gone = isinstance(record, FileRecord) and (record.deleted or record.expires_s < time.time())
        if shelved is None or not isinstance(record, kind) or record.tenant != tenant or gone:
            raise NotFound(f"no such {'file' if kind is FileRecord else 'batch'}", field=field)
        return shelved.seq, record

    async def fresh(self, record_id: str) -> Shelved | None:
        """As the stream has it. Raises Unavailable."""
        entry = await self.catalogue.read(record_id)
        return self._take(entry) if entry is not None else None

    def of_tenant(self, kind: type[T], tenant: str) -> list[T]:
        """Newest first."""
        now_s = time.time()
        found = [record for record in self._records(kind) if record.tenant == tenant]
        live = [one for one in found if not isinstance(one, FileRecord) or not (one.deleted or one.expires_s < now_s)]
        return sorted(live, key=lambda record: (record.created_s, record.id), reverse=True)

    def _records(self, kind: type[T]) -> Iterator[T]:
        return (shelved.record for shelved in self._known.values() if isinstance(shelved.record, kind))

    def unfinished(self) -> list[tuple[Shelved, BatchRecord]]:
        every = ((shelved, shelved.record) for shelved in self._known.values())
        return [(shelved, record) for shelved, record in every if isinstance(record, BatchRecord) and record.open]

    # --- writing ---

    async def write(self, record: Kept, after_seq: int) -> int:
        """Raises Stale, Unavailable."""
        data = encode(record)
        seq = await self.catalogue.write(record.id, data, after_seq)
        self._take(Entry(record.id, seq, data))
        return seq

    # --- forgetting ---

    def forget_old(self) -> list[FileRecord]:
        """Drops what is past its time; returns the files among it, whose content goes too."""
        now_s = time.time()
        needed = {record.input_file for _, record in self.unfinished()}
        old = [shelved.record for shelved in self._known.values() if self._is_old(shelved.record, now_s, needed)]
        for record in old:
            del self._known[record.id]
        return [record for record in old if isinstance(record, FileRecord)]

    def _is_old(self, record: Kept, now_s: float, needed: set[str]) -> bool:
        if isinstance(record, FileRecord):
            return record.expires_s < now_s and record.id not in needed
        return not record.open and record.changed_s + self._kept_s < now_s

    def file_ids(self) -> set[str]:
        return {record.id for record in self._records(FileRecord) if not record.deleted}
