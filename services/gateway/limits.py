"""Each API key's rate limits and quota at admission: charged by prompt and max_tokens (of embeddings, by what is to be
embedded), settled by what was used.

Keys without limits cost nothing. With limits it is one round trip to Redis; while Redis is away each gateway keeps
the limits by itself, going on from what it saw last: neither open nor closed, N gateways let N times as much in.
"""

import asyncio
import math
import time
from dataclasses import dataclass
from typing import Protocol

from headrace.core.access import Key, Limits
from headrace.core.errors import InvalidInput, QuotaExceeded, RateLimited
from headrace.core.rates import Buckets, Verdict, most
from headrace.mesh.errors import StoreDown
from headrace.mesh.logs import get_logger

SETTLING_MAX = 1_024  # settlements under way; beyond it the charge stands
_WHAT = {
    "requests": "requests a minute",
    "tokens": "tokens a minute",
    "concurrent": "requests at once",
    "quota": "tokens a day",
}
_log = get_logger("limits")


class Rates(Protocol):
    async def take(self, key_id: str, limits: Limits, request: str, cost: int, runs_s: float) -> Verdict: ...
    async def settle(self, key_id: str, limits: Limits, request: str, back: int, day: int) -> None: ...


@dataclass(slots=True)
class Taken:
    """A charge that stands until it is settled, once."""

    key: Key
    request: str
    cost: int
    verdict: Verdict
    local: bool  # by this gateway alone
    settled: bool = False

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(name.encode(), value.encode()) for name, value in headers(self.key.limits, self.verdict)]


class Limiter:
    def __init__(self, rates: Rates | None = None) -> None:
        self._rates = rates
        self._last: dict[str, tuple[Verdict, float]] = {}  # key -> what Redis said last, and when
        self._local: dict[str, Buckets] = {}  # while Redis is away
        self._full: dict[str, tuple[RateLimited, float]] = {}  # key -> its refusal, and until when it holds
        self._settling: set[asyncio.Task[None]] = set()
        self.local_takes = 0
        self.refused = 0

    def check(self, key: Key) -> None:
        """Before anything is read or fetched: who was told to wait, waits. Raises RateLimited."""
        told = self._full.get(key.id)
        if told is None:
            return
        left_s = told[1] - time.monotonic()
        if left_s <= 0:
            del self._full[key.id]
            return
        error = type(told[0])(told[0].message, retry_after_s=left_s)
        error.headers = told[0].headers
        self.refused += 1
        raise error

    async def take(self, key: Key, request: str, cost: int, runs_s: float, field: str = "max_tokens") -> Taken | None:
        """Charges one request of at most so many tokens. None: this key has no limits. field: says how many they are.

        Raises:
            RateLimited: with the exact time after which the same request would have been let in.
            InvalidInput: no wait would help.
        """
        if not key.limits:
            return None
        if cost > most(key.limits):
            what = f"{cost} tokens" + (" (prompt and max_tokens)" if field == "max_tokens" else "")
            raise InvalidInput(f"{what}; this key may use {most(key.limits):.0f} at once", field=field)
        verdict, local = await self._verdict(key, request, cost, runs_s)
        if verdict.refused:
            raise self._refusal(key, verdict)
        return Taken(key, request, cost, verdict, local)

    async def _verdict(self, key: Key, request: str, cost: int, runs_s: float) -> tuple[Verdict, bool]:
        if self._rates is not None:
            try:
                verdict = await self._rates.take(key.id, key.limits, request, cost, runs_s)
            except StoreDown:
                pass
            else:
                self._last[key.id] = (verdict, time.time())
                self._local.pop(key.id, None)
                return verdict, False
        now_s = time.time()
        buckets = self._local.get(key.id)
        if buckets is None or buckets.limits != key.limits:
            if self._rates is not None:
                _log.warning("limits_kept_alone", key=key.id)
            buckets = self._local[key.id] = self._begin(key, now_s)
        self.local_takes += 1
        return buckets.take(request, cost, now_s + runs_s, now_s), True

    def _begin(self, key: Key, now_s: float) -> Buckets:
        last = self._last.get(key.id)
        buckets = Buckets.full(key.limits, now_s)
        if last is not None:
            verdict, at_s = last
            buckets.requests, buckets.tokens, buckets.at_s = verdict.requests_left, verdict.tokens_left, at_s
        return buckets

    def _refusal(self, key: Key, verdict: Verdict) -> RateLimited:
        kind = QuotaExceeded if verdict.refused == "quota" else RateLimited
        limit = getattr(key.limits, {"concurrent": "concurrent", "quota": "tokens_per_day"}.get(verdict.refused, ""), 0)
        limit = limit or getattr(key.limits, f"{verdict.refused}_per_min", 0)
        message = f"this key's limit of {limit} {_WHAT[verdict.refused]} is reached"
        error = kind(message, retry_after_s=verdict.retry_after_s)
        error.headers = headers(key.limits, verdict)
        self.refused += 1
        if verdict.refused == "requests":  # of the others a smaller request, or an end, may make room before that
            self._full[key.id] = (error, time.monotonic() + verdict.retry_after_s)
        return error

    def settle(self, taken: Taken, used: int) -> None:
        """The request has ended with so many tokens, or (0) was never accepted. Does not wait."""
        if taken.settled:
            return
        taken.settled = True
        back = taken.cost - used
        if taken.local or self._rates is None:
            if buckets := self._local.get(taken.key.id):
                buckets.settle(taken.request, back, taken.verdict.day)
        elif len(self._settling) < SETTLING_MAX:
            task = asyncio.get_running_loop().create_task(self._settle(self._rates, taken, back))
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)

    async def _settle(self, rates: Rates, taken: Taken, back: int) -> None:
        try:
            await rates.settle(taken.key.id, taken.key.limits, taken.request, back, taken.verdict.day)
        except StoreDown:
            return  # the charge stands: a bucket is full again within a minute


def headers(limits: Limits, verdict: Verdict) -> tuple[tuple[str, str], ...]:
    """x-ratelimit-*, as OpenAI names and writes them; reset: until the bucket is full."""
    told = []
    for name, limit, left in (
        ("requests", limits.requests_per_min, verdict.requests_left),
        ("tokens", limits.tokens_per_min, verdict.tokens_left),
    ):
        if limit:
            told += [
                (f"x-ratelimit-limit-{name}", str(limit)),
                (f"x-ratelimit-remaining-{name}", str(max(0, math.floor(left)))),
                (f"x-ratelimit-reset-{name}", _duration((limit - left) * 60 / limit)),
            ]
    return tuple(told)


def _duration(seconds: float) -> str:
    """As "6m0s", "1.25s" or "120ms"."""
    seconds = max(0.0, seconds)
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds * 1000) / 1000, 60)
    return (f"{minutes:.0f}m" if minutes else "") + f"{rest:g}s"
