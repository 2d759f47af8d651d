"""What nobody holds any more: Redis keys written after their request had ended (by a worker that had been stopped, or
while Redis could not be reached), and blobs of requests that never reached the journal.
"""

import asyncio
import contextlib

from headrace.core.queue import QueueCore
from headrace.mesh.blobs import BlobStore
from headrace.mesh.errors import StoreDown
from headrace.mesh.logs import get_logger
from headrace.mesh.store import Store

EVERY_S = 3.0
BLOBS_OLDER_S = 60.0  # between its blobs and its journal record a request passes seconds at most

log = get_logger("queue")


class Sweeper:
    """A key goes when two rounds in a row have found it without its request: the first may only have been early."""

    def __init__(self, store: Store, blobs: BlobStore, every_s: float = EVERY_S) -> None:
        self._store = store
        self._blobs = blobs
        self._every_s = every_s
        self._suspects: set[str] = set()

    async def run(self, core: QueueCore) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            with contextlib.suppress(StoreDown):  # the next round looks again
                await self._keys(core)
            await self._old_blobs(core)

    async def _keys(self, core: QueueCore) -> None:
        written = await self._store.request_ids()
        live = core.live_ids()
        if live is None:
            return
        stray = written - live
        dead = sorted(stray & self._suspects)
        self._suspects = stray.difference(dead)
        if dead:
            await self._store.drop(dead)
            log.info("stray_keys_dropped", requests=len(dead))

    async def _old_blobs(self, core: QueueCore) -> None:
        live = core.live_ids()
        if live is not None and (swept := await self._blobs.sweep(live, BLOBS_OLDER_S)):
            log.info("stray_blobs_dropped", requests=swept)
