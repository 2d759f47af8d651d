"""Rate limits in Redis and in core: the same sequence, the same verdicts; and what is left behind, and when."""

import asyncio
import random
import time
from dataclasses import replace

import pytest

from headrace.core.access import Limits
from headrace.core.rates import Buckets
from headrace.mesh.errors import StoreDown
from headrace.mesh.rates import TTL_S, Rates
from headrace.mesh.servers import RedisServer
from headrace.mesh.store import Store

LIMITS = Limits(requests_per_min=6000, tokens_per_min=60_000, concurrent=3, tokens_per_day=3_000)


async def _rates(url: str) -> tuple[Rates, Store]:
    store = await Store.connect(url, f"rates-{time.time_ns()}")
    return Rates(store), store


async def test_redis_decides_as_the_core_does(redis_url: str) -> None:
    """60 random charges and settlements; between them time passes, so numbers agree to what passed between the two."""
    rates, store = await _rates(redis_url)
    rng, running, refusals = random.Random(7), list[tuple[str, int, int]](), set[str]()
    here = Buckets.full(LIMITS, time.time())
    for turn in range(60):
        if running and rng.random() < 0.4:
            request, cost, day = running.pop(0)
            back = rng.randrange(-20, cost)
            here.settle(request, back, day)
            await rates.settle("k", LIMITS, request, back, day)
        request, cost = f"r{turn}", rng.randrange(10, 400)
        there = await rates.take("k", LIMITS, request, cost, 60.0)
        mine = here.take(request, cost, time.time() + 60.0, time.time())
        assert there.refused == mine.refused, turn
        assert there.retry_after_s == pytest.approx(mine.retry_after_s, abs=0.05)
        assert there.requests_left == pytest.approx(mine.requests_left, abs=6000 / 60 * 0.1)
        assert there.tokens_left == pytest.approx(mine.tokens_left, abs=60_000 / 60 * 0.1)
        refusals.add(there.refused)
        if not there.refused:
            running.append((request, cost, there.day))
    assert refusals == {"", "concurrent", "quota"}
    await store.close()


@pytest.mark.parametrize(
    ("limits", "cost", "refused", "retry_s"),
    [
        (Limits(requests_per_min=2), 1, "requests", 30.0),
        (Limits(tokens_per_min=100), 50, "tokens", 30.0),
        (Limits(concurrent=2), 1, "concurrent", 1.0),
    ],
)
async def test_a_refusal_says_when_to_come_back(
    redis_url: str, limits: Limits, cost: int, refused: str, retry_s: float
) -> None:
    rates, store = await _rates(redis_url)
    for request in ("a", "b"):
        assert (await rates.take("k", limits, request, cost, 60.0)).refused == ""
    verdict = await rates.take("k", limits, "c", cost, 60.0)
    assert verdict.refused == refused
    assert verdict.retry_after_s == pytest.approx(retry_s, abs=0.2)
    await store.close()


async def test_the_retry_time_is_exact(redis_url: str) -> None:
    """A moment before it the request is refused, a moment after it it is let in."""
    rates, store = await _rates(redis_url)
    limits = Limits(requests_per_min=60)
    while not (verdict := await rates.take("k", limits, "x", 1, 1.0)).refused:
        pass
    told_s = time.monotonic() + verdict.retry_after_s
    await asyncio.sleep(max(0.0, told_s - 0.1 - time.monotonic()))
    assert (await rates.take("k", limits, "x", 1, 1.0)).refused == "requests"
    await asyncio.sleep(max(0.0, told_s + 0.02 - time.monotonic()))
    assert (await rates.take("k", limits, "x", 1, 1.0)).refused == ""
    await store.close()


async def test_every_key_has_a_ttl_and_one_hash_tag(redis_url: str) -> None:
    rates, store = await _rates(redis_url)
    await rates.take("k", LIMITS, "a", 10, 60.0)
    for kind in ("rate", "running"):
        key = store.key(kind, "k")
        assert 0 < await store._client.ttl(key) <= TTL_S
        assert key.startswith("hr:{rates-")
    await rates.settle("k", LIMITS, "a", 4, 0)
    assert 0 < await store._client.ttl(store.key("rate", "k")) <= TTL_S
    assert await store._client.exists(store.key("running", "k")) == 0
    await store.close()


async def test_what_a_dead_gateway_left_running_is_forgotten_at_its_deadline(redis_url: str) -> None:
    rates, store = await _rates(redis_url)
    limits = Limits(concurrent=1)
    await rates.take("k", limits, "a", 1, 0.2)
    assert (await rates.take("k", limits, "b", 1, 0.2)).refused == "concurrent"
    await asyncio.sleep(0.25)
    assert (await rates.take("k", limits, "b", 1, 0.2)).refused == ""
    await store.close()


async def test_a_hundred_at_once_let_in_no_more_than_the_limit(redis_url: str) -> None:
    rates, store = await _rates(redis_url)
    limits = replace(LIMITS, requests_per_min=10, concurrent=0)
    verdicts = await asyncio.gather(*(rates.take("k", limits, str(n), 1, 1.0) for n in range(100)))
    assert sum(not verdict.refused for verdict in verdicts) == 10
    await store.close()


async def test_redis_away_is_said(redis_server: RedisServer) -> None:
    rates, store = await _rates(redis_server.url)
    redis_server.kill()
    with pytest.raises(StoreDown):
        await rates.take("k", LIMITS, "a", 1, 1.0)
    await store.close()
