"""No schedule keeps more promises than this: a bound from a relaxation, by prices on the instances' time.

Relaxed are: iterations (a request needs its least device seconds, queue_costs), preemption (free, at any moment), where
(prefill here, decoding there, a bit at each instance), loading of models (free), slots (but for the floor they share)
and knowledge (all arrivals and lengths are known). What remains: a request whose promise is kept has had its prefill's
seconds between its arrival and its first token's due time, and its decoding's seconds before its time-out, and an
instance has one second a second. That is a linear program; by weak duality *any* prices >= 0 on the instances' time
bound its optimum, and so every policy's attainment:

    kept <= sum of price x time  +  sum over requests of max(0, 1 - what its seconds cost at the cheapest times)

Time is cut into buckets, and a request may use all of a bucket that its window touches. The prices come from gradient
steps on a smoothed bound; that they need not be the best ones costs tightness, never validity.

Three bounds, each at most as large as the one before: `first_token` asks for prefill alone; `complete` also for all of
the answer before the time-out; `unbroken` says that a request once begun is decoded in every iteration until it ends,
so that no more than so many of the longest iterations lie between its first token and its last: true of all policies
that do not evict. With eviction a first token can be had early and the rest be put off, which `unbroken` rules out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from headrace.workload.arrival import Arrival
from headrace.workload.scenario import Scenario
from loadtest.benches.queue_costs import Costs, Floats, longest_step_s

Ints = NDArray[np.int64]

BUCKET_S = 20.0
STEPS = 400
GRACE_S = 2.0  # a request is ended at its deadline by a worker, or a little later by the queue manager
# How soft choices are, from the first step to the last: of the cheapest bucket (share of the price scale), and of
# whether a request is worth its seconds (promises).
_HEAT, _DOUBT = (0.2, 0.01), (0.1, 0.01)
LENGTHS = (64.0, 128.0, 256.0, 512.0, math.inf)  # of answers, up to: sorts whose decoding takes about as long


@dataclass(frozen=True, slots=True)
class Span:
    """Of each request its sort, and of each sort how many buckets its window has, from that of the arrival on."""

    sort: Ints  # [request]
    widths: tuple[int, ...]  # [sort]


@dataclass(frozen=True, slots=True)
class Windows:
    """In which buckets each request may be computed."""

    first: Ints  # [request]: of its arrival
    due: Span  # until its first token is due
    end: Span  # until it must have ended

    @classmethod
    def of(cls, scenario: Scenario, arrivals: Sequence[Arrival], *, unbroken: bool = False) -> "Windows":
        first = np.array([arrival.at_s // BUCKET_S for arrival in arrivals], np.int64)
        classes = np.array([scenario.class_index(arrival.slo_class) for arrival in arrivals], np.int64)
        due = Span(classes, tuple(_buckets(slo.ttft_s) for slo in scenario.classes))
        end = Span(classes, tuple(_buckets(slo.timeout_s + GRACE_S) for slo in scenario.classes))
        if not unbroken:
            return cls(first, due, end)
        step_s = longest_step_s(scenario, arrivals)
        answers = np.searchsorted(LENGTHS[:-1], [arrival.output_tokens for arrival in arrivals])
        widths = tuple(
            _buckets(min(slo.timeout_s, slo.ttft_s + most * step_s) + GRACE_S)
            for slo in scenario.classes
            for most in LENGTHS
        )
        return cls(first, due, Span(classes * len(LENGTHS) + answers, widths))


def _buckets(seconds: float) -> int:
    """That so long a window touches at most."""
    return math.ceil(seconds / BUCKET_S) + 1


@dataclass(frozen=True, slots=True)
class Bound:
    kept: float  # requests, at most
    prices: Floats  # [pool, bucket]: kept promises an instance second
    gain: Floats  # [request]: 1 less what its seconds cost; what is below 0 is not worth its place


def bound(costs: Sequence[Costs], windows: Windows, *, decode: bool = True, steps: int = STEPS) -> Bound:
    """decode: False asks for first tokens alone: also valid, and looser."""
    relaxed = _Relaxed(costs, windows, decode)
    scale = relaxed.price_scale()
    best = relaxed.at(np.zeros(relaxed.shape))
    logs = np.full(relaxed.shape, math.log(scale * 0.5))
    mean, square = np.zeros(relaxed.shape), np.zeros(relaxed.shape)
    for step in range(1, steps + 1):
        share = step / steps
        slope = relaxed.slope(np.exp(logs), scale * _between(_HEAT, share), _between(_DOUBT, share))
        slope *= np.exp(logs)  # of the logarithms (Adam, Kingma and Ba 2015)
        mean, square = 0.9 * mean + 0.1 * slope, 0.99 * square + 0.01 * slope**2
        rate = 0.3 * (1 - share) + 0.003
        logs -= rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-12)
        logs = np.clip(logs, math.log(scale) - 12.0, math.log(scale) + 4.0)
        if step % 5 == 0 or step == steps:
            best = min(best, relaxed.at(np.exp(logs)), key=lambda each: each.kept)
    return best


def _between(ends: tuple[float, float], share: float) -> float:
    return float(ends[0] * (ends[1] / ends[0]) ** share)


class _Relaxed:
    def __init__(self, costs: Sequence[Costs], windows: Windows, decode: bool) -> None:
        self._first = windows.first
        self._arrival_buckets = int(self._first.max()) + 1 if len(self._first) else 1
        self._parts = [(np.array([each.prefill_s for each in costs]), windows.due)]
        if decode:
            self._parts.append((np.array([each.decode_s for each in costs]), windows.end))
        self._room_s = np.array([[BUCKET_S * each.count] for each in costs])
        self.shape = (len(costs), self._arrival_buckets + max(max(span.widths) for _, span in self._parts))

    def price_scale(self) -> float:
        """One promise for the seconds of a usual request at the fastest instance."""
        total = np.sum([np.min(work, axis=0) for work, _ in self._parts], axis=0)
        known = total[np.isfinite(total)]
        return 1.0 / float(np.mean(known)) if len(known) else 1.0

    def at(self, prices: Floats) -> Bound:
        """The bound that these prices give, exactly."""
        cost = np.sum([np.min(self._times(work, prices, span), axis=0) for work, span in self._parts], axis=0)
        return Bound(float((prices * self._room_s).sum() + np.maximum(1.0 - cost, 0.0).sum()), prices, 1.0 - cost)

    def slope(self, prices: Floats, heat: float, doubt: float) -> Floats:
        """Of a smoothed bound: a request takes its seconds from the cheap buckets of its window."""
        rows = np.arange(len(self._first))
        each = [self._times(work, prices, span) for work, span in self._parts]
        where = [np.argmin(times, axis=0) for times in each]
        cost = np.sum([times[at, rows] for times, at in zip(each, where, strict=True)], axis=0)
        worth = 1.0 / (1.0 + np.exp(np.clip((cost - 1.0) / doubt, -50, 50)))
        slope = np.broadcast_to(self._room_s, self.shape).copy()
        for (work, span), at in zip(self._parts, where, strict=True):
            asked_s = worth * np.where(np.isfinite(cost), work[at, rows], 0.0)
            for pool in range(len(prices)):
                slope[pool] -= self._taken(prices[pool], span, np.where(at == pool, asked_s, 0.0), heat)
        return slope

    def _taken(self, prices: Floats, span: Span, asked_s: Floats, heat: float) -> Floats:
        """Seconds of each bucket."""
        taken = np.zeros(len(prices))
        for sort, width in enumerate(span.widths):
            wanted = np.bincount(self._first, np.where(span.sort == sort, asked_s, 0.0), self._arrival_buckets)
            if not wanted.any():
                continue
            seen = sliding_window_view(prices, width)[: self._arrival_buckets]
            soft = np.exp((seen.min(axis=1, keepdims=True) - seen) / heat)
            soft *= (wanted / soft.sum(axis=1))[:, None]
            buckets = np.add.outer(np.arange(self._arrival_buckets), np.arange(width))
            taken += np.bincount(buckets.ravel(), soft.ravel(), len(prices))
        return taken

    def _times(self, work: Floats, prices: Floats, span: Span) -> Floats:
        """[pool, request]: its seconds x the lowest price in its window; impossible stays so where time is free."""
        least = np.empty((len(span.widths), len(prices), self._arrival_buckets))
        for sort, width in enumerate(span.widths):
            for pool in range(len(prices)):
                least[sort, pool] = sliding_window_view(prices[pool], width)[: self._arrival_buckets].min(axis=1)
        price = least[span.sort, :, self._first].T
        return np.where(np.isfinite(work), np.where(np.isfinite(work), work, 0.0) * price, np.inf)
