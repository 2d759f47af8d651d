"""What batches are kept in: records written by one at a time, outcomes stored once, files whole or not at all."""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from headrace.core.errors import NotFound, Unavailable
from headrace.mesh.bus import Bus
from headrace.mesh.catalogue import Catalogue, Entry, Stale
from headrace.mesh.config import Settings
from headrace.mesh.files import CHUNK_BYTES, FileStore
from headrace.mesh.follower import Record
from headrace.mesh.outcomes import Outcomes
from headrace.mesh.servers import NatsServer

pytestmark = pytest.mark.timeout(30)
ONE, TWO = "1" * 32, "2" * 32


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    bus = await Bus.connect(nats_server.url, "gateway-0")
    yield bus
    await bus.close()


async def followed(bus: Bus) -> tuple[Catalogue, dict[str, Entry]]:
    seen: dict[str, Entry] = {}

    def take(entries: Sequence[Entry]) -> None:
        seen.update((entry.record_id, entry) for entry in entries)

    catalogue = Catalogue(bus, Settings(), take)
    await catalogue.start()
    async with asyncio.timeout(5):
        while not catalogue.complete:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return catalogue, seen


async def test_one_of_two_writers_wins_and_the_other_is_told(bus: Bus) -> None:
    catalogue, _ = await followed(bus)
    first = await catalogue.write(ONE, b"a", 0)
    results = await asyncio.gather(
        catalogue.write(ONE, b"b", first), catalogue.write(ONE, b"c", first), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in results) == ["Stale", "int"]
    with pytest.raises(Stale):
        await catalogue.write(ONE, b"d", 0)
    newest = await catalogue.read(ONE)
    assert newest is not None
    assert newest.data in (b"b", b"c")
    assert await catalogue.read(TWO) is None
    await catalogue.stop()


async def test_whoever_comes_later_knows_the_newest_of_each_also_after_a_restart(
    bus: Bus, nats_server: NatsServer
) -> None:
    catalogue, _ = await followed(bus)
    seq = await catalogue.write(ONE, b"old", 0)
    await catalogue.write(ONE, b"new", seq)
    await catalogue.write(TWO, b"other", 0)
    await asyncio.to_thread(nats_server.restart, kill=True)
    async with asyncio.timeout(20):
        while True:
            try:
                later, seen = await followed(bus)
                break
            except Unavailable:
                await asyncio.sleep(0.1)
    assert {name: entry.data for name, entry in seen.items()} == {ONE: b"new", TWO: b"other"}
    await later.stop()
    await catalogue.stop()


async def test_an_outcome_is_stored_once_and_read_in_the_order_of_storing(bus: Bus) -> None:
    outcomes = Outcomes(bus, Settings())
    await outcomes.open()
    stored = [await outcomes.store(ONE, number, data) for number, data in ((3, b"x"), (0, b"y"), (3, b"late"))]
    await outcomes.store(TWO, 7, b"another's")
    assert stored == [True, True, False]
    assert await read(outcomes, ONE) == [("3", b"x"), ("0", b"y")]
    await outcomes.purge(ONE)
    assert await read(outcomes, ONE) == []
    assert await read(outcomes, TWO) == [("7", b"another's")]


async def read(outcomes: Outcomes, batch_id: str) -> list[tuple[str, bytes]]:
    found: list[Record] = []
    over = asyncio.Event()
    follower = outcomes.follow(batch_id, found.extend, over.set)
    async with asyncio.timeout(5):
        await over.wait()
    await follower.stop()
    return [(record.request_id, record.data) for record in found]


async def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    files, data = FileStore(tmp_path), os.urandom(CHUNK_BYTES + 17)
    draft = files.draft(ONE)
    draft.write(data[:5])
    assert not files.has(ONE)
    draft.write(data[5:])
    sealed = await draft.seal()
    assert (sealed.size_bytes, sealed.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert b"".join([chunk async for chunk in files.chunks(ONE)]) == data
    other = files.draft(ONE)
    other.write(b"not this")
    other.discard()
    assert [path.name for path in (tmp_path / "files").iterdir()] == [ONE]
    await files.drop(ONE)
    with pytest.raises(NotFound):
        await anext(files.chunks(ONE))


async def test_lines_come_in_pages_and_none_is_cut(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    lines = [b"%d" % number * (number % 3000) + b"\n" for number in range(1500)] + [b"no end"]
    await files.put(ONE, b"".join(lines))
    pages = [page async for page in files.lines(ONE)]
    assert len(pages) > 2
    assert [line for page in pages for line in page] == lines


async def test_only_what_is_old_and_nobodys_is_swept(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    for name in (ONE, TWO, "3" * 32):
        await files.put(name, b"x")
    old_s = time.time() - 100.0
    for name in (ONE, TWO):
        os.utime(tmp_path / "files" / name, (old_s, old_s))
    assert await files.sweep({ONE}, 50.0) == 1
    assert {path.name for path in (tmp_path / "files").iterdir()} == {ONE, "3" * 32}
