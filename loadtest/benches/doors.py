"""What the gateway's door costs a request: finding its key, and charging it where it has limits.

find: the key's record from its header, among 10,000 keys. unlimited: charging a key without limits. alone: one charge
and its settlement by the gateway itself (Redis away). redis: the same, each one round trip to a Redis on loopback,
one after the other and 8 at once. Microseconds; means, and for redis quantiles of single charges.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from headrace.core.access import Key, Limits
from headrace.mesh import keyfile
from headrace.mesh.keyring import Keys
from headrace.mesh.rates import Rates
from headrace.mesh.servers import redis_server
from headrace.mesh.store import Store
from loadtest.benches.report import finish, percentile, say
from services.gateway.limits import Limiter

KEYS = 10_000
LIMITS = Limits(requests_per_min=10**9, tokens_per_min=10**9, concurrent=10_000, tokens_per_day=10**12)
COST, RUNS_S = 500, 60.0


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="headrace bench doors", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls: a few seconds")
    args = parser.parse_args(argv)
    calls = 2_000 if args.quick else 20_000
    found = {"find_us": find_us(calls)} | asyncio.run(charges(calls))
    say("\n".join(f"{name:<24} {value:10.1f}" for name, value in found.items()))
    if args.json:
        finish("doors", argv, [], {"calls": calls} | {name: round(value, 2) for name, value in found.items()})


def mean_us(calls: int, call: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - began_s) / calls * 1e6


def find_us(calls: int) -> float:
    made = [keyfile.make("tenant", ["generate"]) for _ in range(KEYS)]
    keys, header = Keys([key for _, key in made]), f"Bearer {made[KEYS // 2][0]}"
    return mean_us(calls, lambda: keys.require(header, "generate", "batch"))


async def charges(calls: int) -> dict[str, float]:
    _, free = keyfile.make("tenant", ["generate"])
    _, limited = keyfile.make("tenant", ["generate"], LIMITS)
    with tempfile.TemporaryDirectory() as folder:
        server = redis_server(Path(folder))
        server.start()
        store = await Store.connect(server.url, "bench")
        limiter = Limiter(Rates(store))
        try:
            found = {
                "unlimited_us": await _mean_us(calls, Limiter(), free),
                "alone_us": await _mean_us(calls, Limiter(), limited),
            }
            took = [await _one_us(limiter, limited, str(n)) for n in range(calls)]
            found |= {"redis_p50_us": percentile(took, 0.5), "redis_p99_us": percentile(took, 0.99)}
            found["redis_8_at_once_us"] = await _at_once_us(calls, limiter, limited)
        finally:
            await store.close()
            server.stop()
    return found


async def _one_us(limiter: Limiter, key: Key, request: str) -> float:
    """Of the charge: its settlement comes after the answer and holds nobody up."""
    began_s = time.perf_counter()
    taken = await limiter.take(key, request, COST, RUNS_S)
    took_us = (time.perf_counter() - began_s) * 1e6
    assert taken is not None
    limiter.settle(taken, COST // 2)
    return took_us


async def _mean_us(calls: int, limiter: Limiter, key: Key) -> float:
    began_s = time.perf_counter()
    for n in range(calls):
        taken = await limiter.take(key, str(n), COST, RUNS_S)
        if taken is not None:
            limiter.settle(taken, COST // 2)
    return (time.perf_counter() - began_s) / calls * 1e6


async def _at_once_us(calls: int, limiter: Limiter, key: Key) -> float:
    """Wall time a charge and its settlement, 8 clients asking."""

    async def client(name: int) -> None:
        for n in range(calls // 8):
            await _one_us(limiter, key, f"{name}.{n}")

    began_s = time.perf_counter()
    await asyncio.gather(*map(client, range(8)))
    return (time.perf_counter() - began_s) / calls * 1e6


if __name__ == "__main__":
    main()
