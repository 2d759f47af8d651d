"""What must be done, however long it takes: results stored, journal records deleted, blobs and Redis keys dropped.

A fixed crew stores results, each one at a time; one sweeper deletes whatever has gathered since its last round.
No task is made for a request.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from headrace.core.effects import DeleteRecord, DropState, Effect, StoreResult
from headrace.core.errors import Unavailable
from headrace.core.events import Event, ResultStored
from headrace.mesh.blobs import BlobStore
from headrace.mesh.errors import StoreDown
from headrace.mesh.faults import reach
from headrace.mesh.journal import Journal
from headrace.mesh.logs import get_logger
from headrace.mesh.store import Store
from headrace.wire.convert import result_to_proto

CREW = 64  # results on their way to the disk at once: at 2 ms each, 32,000/s
AGAIN_S = 0.5  # between tries while the journal is away
BLOBS_AT_ONCE = 16
# Between two rounds of deletes: what has ended is in no hurry to go, and a round costs the same for one as for fifty.
GATHER_S = 0.02

log = get_logger("queue")


class Chores:
    """The backlog is bounded by the core: a request ends once, and few more are admitted than the queues hold."""

    def __init__(self, journal: Journal, store: Store, blobs: BlobStore, on_event: Callable[[Event], None]) -> None:
        self._journal = journal
        self._store = store
        self._blobs = blobs
        self._on_event = on_event
        self._results: asyncio.Queue[StoreResult] = asyncio.Queue()
        self._records: list[DeleteRecord] = []
        self._drops: list[DropState] = []
        self._work = asyncio.Event()

    def take(self, effect: Effect) -> bool:
        """False: not one of these chores."""
        if isinstance(effect, StoreResult):
            self._results.put_nowait(effect)
        elif isinstance(effect, DeleteRecord):
            self._records.append(effect)
            self._work.set()
        elif isinstance(effect, DropState):
            self._drops.append(effect)
            self._work.set()
        else:
            return False
        return True

    def services(self) -> list[Coroutine[Any, Any, None]]:
        return [self._sweep(), *(self._store_results() for _ in range(CREW))]

    async def _store_results(self) -> None:
        while True:
            effect = await self._results.get()
            record = result_to_proto(
                effect.request, effect.attempt, effect.tokens, effect.end, effect.ended_s, effect.logprobs
            )
            await self._store_result(effect.request.id, record.SerializeToString())
            reach("queue.result_stored", effect.request.id)
            self._on_event(ResultStored(effect.request.id))

    async def _store_result(self, request_id: str, data: bytes) -> None:
        """Until it is stored; one that was there already is the request's end."""
        while True:
            try:
                await self._journal.store_result(request_id, data)
            except Unavailable as error:
                log.warning("result_not_stored_yet", request_id=request_id, why=error.message)
                await asyncio.sleep(AGAIN_S)
            else:
                return

    async def _sweep(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            records, self._records = self._records, []
            drops, self._drops = self._drops, []
            if drops:  # first: whoever dies in between leaves a record, which the next leadership finds ended
                await self._drop(drops)
            if records:
                await self._delete(records)
            await asyncio.sleep(GATHER_S)

    async def _delete(self, records: list[DeleteRecord]) -> None:
        """A record that stays would only be found ended by the next leadership; but it would take up room."""
        while True:
            try:
                await self._journal.delete([record.seq for record in records])
            except Unavailable as error:
                log.warning("records_not_deleted_yet", records=len(records), why=error.message)
                await asyncio.sleep(AGAIN_S)
            else:
                break
        for record in records:
            reach("queue.record_deleted", record.request_id)

    async def _drop(self, drops: list[DropState]) -> None:
        with_media = [drop.request_id for drop in drops if drop.has_media]
        for start in range(0, len(with_media), BLOBS_AT_ONCE):
            await asyncio.gather(*map(self._blobs.drop, with_media[start : start + BLOBS_AT_ONCE]))
        try:
            await self._store.drop([drop.request_id for drop in drops])
        except StoreDown:
            return  # every key there has a TTL
