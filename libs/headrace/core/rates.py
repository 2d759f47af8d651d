"""Token buckets and a daily quota for one API key: what a gateway does by itself, and what Redis does for all of them.

A bucket of L a minute holds at most L and gains L / 60 each second (a leaky bucket read backwards; ITU-T I.371). The
script in mesh/rates.py decides the same: tests/mesh/test_rates.py drives both with one sequence and compares.
"""

import math
from dataclasses import dataclass, field

from headrace.core.access import Limits

DAY_S = 86_400
BUSY_AGAIN_S = 1.0  # nobody knows when a running request of the same key will end


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided, and what is left afterwards. refused: empty, or the limit that takes longest to give way."""

    refused: str = ""  # requests, tokens, concurrent, quota
    retry_after_s: float = 0.0
    requests_left: float = 0.0
    tokens_left: float = 0.0
    day: int = 0  # since the epoch, of the charge


@dataclass(slots=True)
class Buckets:
    """One key's state. Requests are charged one each; tokens by prompt and the most that may be generated."""

    limits: Limits
    requests: float
    tokens: float
    at_s: float
    day: int = 0
    used: float = 0.0  # of that day's quota
    running: dict[str, float] = field(default_factory=dict)  # request -> when it counts no longer

    @staticmethod
    def full(limits: Limits, now_s: float) -> "Buckets":
        return Buckets(limits, limits.requests_per_min, limits.tokens_per_min, now_s, int(now_s // DAY_S))

    def take(self, request: str, cost: int, until_s: float, now_s: float) -> Verdict:
        """Charges one request of so many tokens, or nothing. until_s: when it has ended for certain."""
        self._refill(now_s)
        waits = self._waits(cost, now_s)
        if waits:
            refused = max(waits, key=lambda name: waits[name])
            return Verdict(refused, waits[refused], self.requests, self.tokens, self.day)
        self.requests -= 1 if self.limits.requests_per_min else 0
        self.tokens -= cost if self.limits.tokens_per_min else 0
        self.used += cost
        if self.limits.concurrent:
            self.running[request] = until_s
        return Verdict("", 0.0, self.requests, self.tokens, self.day)

    def settle(self, request: str, back: int, day: int) -> None:
        """The request has ended; back: tokens that it was charged and has not used (below 0: used beyond)."""
        self.running.pop(request, None)
        self.tokens = min(self.limits.tokens_per_min, self.tokens + back)
        if day == self.day:
            self.used = max(0.0, self.used - back)

    def _refill(self, now_s: float) -> None:
        limits, passed_s = self.limits, max(0.0, now_s - self.at_s)
        self.requests = min(limits.requests_per_min, self.requests + limits.requests_per_min * passed_s / 60)
        self.tokens = min(limits.tokens_per_min, self.tokens + limits.tokens_per_min * passed_s / 60)
        self.at_s = max(self.at_s, now_s)
        today = int(now_s // DAY_S)
        if today != self.day:
            self.day, self.used = today, 0.0
        self.running = {request: until_s for request, until_s in self.running.items() if until_s > now_s}

    def _waits(self, cost: int, now_s: float) -> dict[str, float]:
        """Limit -> seconds until it would let this request in, of those that do not."""
        limits, waits = self.limits, dict[str, float]()
        if limits.requests_per_min and self.requests < 1:
            waits["requests"] = (1 - self.requests) * 60 / limits.requests_per_min
        if limits.tokens_per_min and self.tokens < cost:
            waits["tokens"] = (cost - self.tokens) * 60 / limits.tokens_per_min
        if limits.concurrent and len(self.running) >= limits.concurrent:
            waits["concurrent"] = BUSY_AGAIN_S
        if limits.tokens_per_day and self.used + cost > limits.tokens_per_day:
            waits["quota"] = (self.day + 1) * DAY_S - now_s
        return waits


def most(limits: Limits) -> float:
    """Tokens that one request may be charged at all; inf where there is no such limit."""
    return min([n for n in (limits.tokens_per_min, limits.tokens_per_day) if n], default=math.inf)
