"""The store behind real Sentinels: a master that dies or hangs is replaced, and what it had not passed on is told."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from headrace.core.access import Limits
from headrace.core.types import Key
from headrace.mesh.errors import StoreDown
from headrace.mesh.rates import Rates
from headrace.mesh.store import Store
from headrace.mesh.token_log import TokenChunk
from tests.cluster.redis_sentinels import LAG_S, Sentinels

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(90), pytest.mark.asyncio(loop_scope="module")]

BACK_S = 20.0  # 0.7 s of silence, an election and the switch take 2 s on a quiet machine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sentinels(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sentinels]:
    async with Sentinels(tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def store(sentinels: Sentinels) -> AsyncIterator[Store]:
    await sentinels.until_formed()
    one = await Store.connect(sentinels.url, f"cell-{time.time_ns()}")
    yield one
    await one.close()


async def until_written(store: Store, within_s: float = BACK_S) -> float:
    began_s = time.monotonic()
    while True:
        try:
            await store.put_queue(b"x")
        except StoreDown:
            assert time.monotonic() - began_s < within_s, "no master took a write"
            await asyncio.sleep(0.05)
        else:
            return time.monotonic() - began_s


def chunk(start: int, *tokens: int) -> TokenChunk:
    return TokenChunk(Key("r1", 1), start, tokens)


async def test_a_killed_master_is_replaced_and_what_it_took_along_is_told(sentinels: Sentinels, store: Store) -> None:
    old = sentinels.master()
    assert await store.append_tokens([chunk(0, 1)]) == [1]
    await asyncio.sleep(0.3)
    for replica in {0, 1, 2} - {old}:
        sentinels.pause(replica)
    with sentinels.direct(old) as master:  # the next chunk reaches nobody else
        master.config_set("min-replicas-to-write", 0)
        master.client_kill_filter(_type="replica")
    assert await store.append_tokens([chunk(1, 2)]) == [2]
    await asyncio.to_thread(sentinels.servers[old].kill)
    for replica in {0, 1, 2} - {old}:
        sentinels.resume(replica)
    await until_written(store)
    assert sentinels.master() != old
    assert await store.append_tokens([chunk(2, 3)]) == [2], "as long as after the write before: one is missing"
    assert (await store.read_tokens(["r1"]))["r1"].tokens == (1,), "a gap is never bridged"
    await store.append_tokens([chunk(0, 1, 2, 3)])
    assert (await store.read_tokens(["r1"]))["r1"].tokens == (1, 2, 3)
    await asyncio.to_thread(sentinels.servers[old].start)


async def test_a_master_that_hangs_is_replaced_and_keeps_nothing_to_itself(sentinels: Sentinels, store: Store) -> None:
    old, rates = sentinels.master(), Rates(store)
    await until_written(store)
    sentinels.pause(old)
    await until_written(store)
    assert (await rates.take("k", Limits(requests_per_min=5), "q", 1, 10.0)).refused == ""
    sentinels.resume(old)  # it takes itself for the master until a Sentinel tells it otherwise
    await store.append_tokens([chunk(0, 7)])
    for index, expected in ((sentinels.master(), 1), (old, 0)):
        with sentinels.direct(index) as asked:
            assert asked.exists(store.key("tokens", "r1")) == expected


async def test_a_master_without_replicas_takes_no_write(sentinels: Sentinels, store: Store) -> None:
    """Such a one may be cut off, with another elected: what it took would be lost with nobody told."""
    master = sentinels.master()
    await until_written(store)
    for replica in {0, 1, 2} - {master}:
        sentinels.pause(replica)
    await asyncio.sleep(LAG_S + 1.5)
    with pytest.raises(StoreDown, match="refuses"):
        await store.put_queue(b"x")
    for replica in {0, 1, 2} - {master}:
        sentinels.resume(replica)
    await until_written(store)
