"""Redis state: token logs that survive repeats, gaps and late writers; TTLs everywhere; outages are typed and short."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest
import redis as redis_sync

from headrace.core.types import Key, TensorHandle, TokenLogprobs
from headrace.mesh import store as store_module
from headrace.mesh.errors import BadSetup, StoreDown
from headrace.mesh.servers import RedisServer
from headrace.mesh.store import Store
from headrace.mesh.token_log import TokenChunk, join, pack


@pytest.fixture
async def store(redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    one = await Store.connect(redis_url, f"cell-{os.getpid()}-{abs(hash(request.node.name))}")
    yield one
    await one.close()


def handle(tensor_id: str) -> TensorHandle:
    return TensorHandle(tensor_id, "p-0", "aa", "/x", "h", "127.0.0.1:1", "float32", (2, 3), "llama", 24, 2**64 - 1, 7)


A, B = 4097, 4098  # attempts


@pytest.mark.parametrize(
    ("chunks", "tokens", "why"),
    [
        ([], [], "nothing was written"),
        ([(A, 0, [1, 2]), (A, 2, [3])], [1, 2, 3], "in order"),
        ([(A, 0, [1, 2]), (A, 0, [1, 2]), (A, 2, [3]), (A, 2, [3])], [1, 2, 3], "each twice"),
        ([(A, 8, [9]), (A, 9, [10])], [], "the beginning was lost with the server: nothing can be used"),
        ([(A, 0, [1]), (A, 5, [6])], [1], "up to the gap"),
        ([(A, 0, [1, 2, 3]), (B, 2, [7, 8])], [1, 2, 7, 8], "the next attempt goes on where it was told to"),
        ([(A, 0, [1, 2]), (B, 1, [7]), (A, 2, [3, 4])], [1, 7], "a paused worker that wakes up does not count"),
        ([(A, 0, [1]), (B, 4, [5]), (A, 1, [2])], [1, 2], "an attempt behind a gap has not taken over the log"),
    ],
)
def test_a_token_log_reads_as(chunks: list[tuple[int, int, list[int]]], tokens: list[int], why: str) -> None:
    log = join([pack(TokenChunk(Key("r1", attempt), start, some)) for attempt, start, some in chunks])
    assert list(log.tokens) == tokens, why
    assert log.logprobs == ()


def told(token: int) -> TokenLogprobs:
    return TokenLogprobs(-token / 8, ((token, -token / 8), (0, -20.5)))


@pytest.mark.parametrize(
    ("chunks", "known", "why"),
    [
        ([(A, 0, [1, 2]), (A, 2, [3])], {0: 1, 1: 2, 2: 3}, "in order"),
        ([(A, 0, [1, 2, 3]), (B, 2, [7])], {0: 1, 1: 2, 2: 7}, "they go with the tokens that are overwritten"),
        ([(A, 0, [1, 2]), (B, 1, [7]), (A, 2, [3])], {0: 1, 1: 7}, "of a paused worker they do not count either"),
        ([(A, 0, [1]), (A, 5, [6])], {0: 1}, "up to the gap"),
    ],
)
def test_a_token_log_tells_logprobs(chunks: list[tuple[int, int, list[int]]], known: dict[int, int], why: str) -> None:
    packed = [
        pack(TokenChunk(Key("r1", attempt), start, some, tuple((start + n, told(t)) for n, t in enumerate(some))))
        for attempt, start, some in chunks
    ]
    assert dict(join(packed).logprobs) == {index: told(token) for index, token in known.items()}, why


def test_tokens_without_logprobs_stand_between_others() -> None:
    chunks = [TokenChunk(Key("r", A), 0, [1, 2], ((1, told(2)),)), TokenChunk(Key("r", A), 2, [3])]
    assert join(map(pack, chunks)) == ((1, 2, 3), ((1, told(2)),))


async def test_token_logs_are_written_read_and_dropped(store: Store) -> None:
    many = [TokenChunk(Key(f"{i:032x}", 4097), 0, [i, i + 1]) for i in range(1200)]
    await store.append_tokens(many)
    await store.append_tokens([TokenChunk(Key(f"{5:032x}", 4097), 2, [49151], ((2, told(9)),))])
    found = await store.read_tokens([f"{i:032x}" for i in range(1201)])
    assert found[f"{5:032x}"] == ((5, 6, 49151), ((2, told(9)),))
    assert found[f"{1199:032x}"].tokens == (1199, 1200)
    assert found[f"{1200:032x}"].tokens == ()
    assert await store.count("tokens") == 1200
    await store.drop(list(found))
    assert await store.count("tokens") == 0


async def test_handles_belong_to_their_request(store: Store) -> None:
    kv, embedding = handle("kv.r1.4097"), handle("emb.r1.4097.0")
    await store.put_handles([kv, embedding, handle("kv.r2.4097")])
    assert {found.id: found for found in await store.read_handles("r1")} == {kv.id: kv, embedding.id: embedding}
    await store.drop(["r1", "r2"])
    assert await store.read_handles("r1") == []


async def test_leases_and_the_queue(store: Store) -> None:
    await store.put_leases({"decode-0": b"{}", "prefill-0": b"[]"})
    assert await store.read_leases() == {"decode-0": b"{}", "prefill-0": b"[]"}
    assert await store.read_queue() is None
    await store.put_queue(b"snapshot")
    assert await store.read_queue() == b"snapshot"


async def test_every_key_has_a_time_to_live(store: Store, redis_url: str) -> None:
    await store.append_tokens([TokenChunk(Key("r1", 1), 0, [1])])
    await store.put_handles([handle("kv.r1.1")])
    await store.put_leases({"w": b"x"})
    await store.put_queue(b"x")
    with redis_sync.Redis.from_url(redis_url) as client:
        keys = list(client.scan_iter(store.key("", "").removesuffix(":") + "*"))
        assert len(keys) == 4
        assert all(client.ttl(key) > 0 for key in keys)
        assert all(key.startswith(b"hr:{cell-") for key in keys)


async def test_after_flushall_it_works_on(store: Store, redis_url: str) -> None:
    assert await store.append_tokens([TokenChunk(Key("r1", 1), 0, [1])]) == [1]
    with redis_sync.Redis.from_url(redis_url) as client:
        client.flushall()
        client.script_flush()
    chunks = [TokenChunk(Key("r1", 1), 1, [2]), TokenChunk(Key("r2", 1), 0, [3])]
    assert await store.append_tokens(chunks) == [1, 1], "the first log is no longer than before"
    assert await store.read_tokens(["r1", "r2"]) == {"r1": ((), ()), "r2": ((3,), ())}


async def test_an_outage_is_typed_and_quick_and_ends(redis_server: RedisServer) -> None:
    store = await Store.connect(redis_server.url, "local")
    await store.put_queue(b"x")
    redis_server.kill()
    with pytest.raises(StoreDown):
        await store.put_queue(b"x")
    start_s = time.monotonic()
    for _ in range(100):
        with pytest.raises(StoreDown):
            await store.put_queue(b"x")
    assert time.monotonic() - start_s < 0.4
    redis_server.start()
    await asyncio.sleep(store_module.DOWN_S)
    await store.put_queue(b"y")
    assert await store.read_queue() == b"y"
    await store.close()


async def test_a_hanging_redis_costs_a_second(redis_server: RedisServer) -> None:
    store = await Store.connect(redis_server.url, "local")
    os.kill(redis_server.pid, signal.SIGSTOP)
    start_s = time.monotonic()
    with pytest.raises(StoreDown):
        await store.put_queue(b"x")
    assert time.monotonic() - start_s < 2.5
    os.kill(redis_server.pid, signal.SIGCONT)
    await asyncio.sleep(store_module.DOWN_S)
    await store.put_queue(b"y")
    await store.close()


async def test_redis_away_at_start_is_waited_for(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "CONNECT_WAIT_S", 0.3)
    redis_server.stop()
    store = await Store.connect(redis_server.url, "local")
    with pytest.raises(StoreDown):
        await store.put_queue(b"x")
    redis_server.start()
    await asyncio.sleep(store_module.DOWN_S)
    await store.put_queue(b"x")
    await store.close()


async def test_a_wrong_password_is_a_bad_set_up(redis_server: RedisServer) -> None:
    with redis_sync.Redis.from_url(redis_server.url) as client:
        client.config_set("requirepass", "secret")
    with pytest.raises(BadSetup, match="HEADRACE_REDIS_URL"):
        await Store.connect(redis_server.url, "local")


def test_what_was_told_of_overwritten_tokens_goes_with_them() -> None:
    chunks = [TokenChunk(Key("r", A), 0, [1, 2], ((0, told(1)), (1, told(2)))), TokenChunk(Key("r", B), 1, [7])]
    assert join(map(pack, chunks)) == ((1, 7), ((0, told(1)),))
