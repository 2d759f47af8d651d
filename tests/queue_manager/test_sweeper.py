"""What nobody holds any more goes, what the living hold stays; a leadership that does not know all of them waits."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from headrace.core.events import CaughtUp, RequestAccepted
from headrace.core.queue import QueueConfig, QueueCore
from headrace.core.types import Key
from headrace.mesh.blobs import DirectoryBlobs
from headrace.mesh.store import Store
from headrace.mesh.token_log import TokenChunk
from services.queue_manager.sweeper import BLOBS_OLDER_S, Sweeper
from tests.queue_manager.cellmates import make_request

pytestmark = pytest.mark.timeout(30)
LIVE, STRAY, NEW = f"{1:032x}", f"{2:032x}", f"{3:032x}"


async def test_strays_go_and_the_living_stay(redis_url: str, tmp_path: Path) -> None:
    blobs, store = DirectoryBlobs(tmp_path), await Store.connect(redis_url, f"sweep-{time.time_ns()}")
    for request_id in (LIVE, STRAY, NEW):
        await blobs.put(request_id, b"picture")
    for request_id in (LIVE, STRAY):
        os.utime(tmp_path / "blobs" / request_id, (0, time.time() - 2 * BLOBS_OLDER_S))
        await store.append_tokens([TokenChunk(Key(request_id, 1), 0, [1, 2])])
    core = QueueCore(QueueConfig(epoch=1))
    core.handle(RequestAccepted(make_request(1), 1), time.time())
    sweeping = asyncio.create_task(Sweeper(store, blobs, every_s=0.02).run(core))
    await asyncio.sleep(0.3)
    assert await blobs.count() == 3, "before the journal has been read, everything may be alive"
    core.handle(CaughtUp(), time.time())
    async with asyncio.timeout(5.0):
        while await blobs.count() > 2 or await store.request_ids() != {LIVE}:  # noqa: ASYNC110 another task's doing
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    sweeping.cancel()
    assert await blobs.get(LIVE, (await blobs.put(LIVE, b"picture"))) == b"picture"
    assert not (tmp_path / "blobs" / STRAY).exists()
    assert (tmp_path / "blobs" / NEW).exists(), "its journal record may be on its way"
    assert await store.request_ids() == {LIVE}
    await store.drop([LIVE])
    await store.close()
