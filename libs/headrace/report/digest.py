"""What the tables and the page need of one run, of a size that does not grow with its requests.

A worker process makes it, so that a sweep over millions of requests sends kilobytes home.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headrace.core.slo import SloClass
from headrace.sim.result import REASONS, Floats, Histogram, Pool, Result, Scaling, percentile

POINTS_MAX = 240  # of a time series: more than a printed figure resolves
_QUANTILES = 257
_WINDOWS_MAX = 60
_WINDOW_REQUESTS = 100  # below that the 99th percentile of a window is its maximum
_STILL_GOING = "unfinished"


@dataclass(frozen=True, slots=True)
class Curve:
    """x rising, y beside it; nan in y: nothing was known there."""

    x: Floats
    y: Floats


@dataclass(frozen=True, slots=True)
class Digest:
    scenario: str
    policy: str
    seed: int
    classes: tuple[SloClass, ...]
    summary: Mapping[str, float]  # Result.summary()
    attainment: Mapping[str, float]  # by class, 0 to 1; nan: none came
    requests: Mapping[str, int]  # by class
    ended: Mapping[str, int]  # by reason, "unfinished" for those still in the mesh
    counters: Mapping[str, float]
    duration_s: float
    ttft: Mapping[str, Curve]  # "p50", "p99": seconds over time of arrival
    tbt: Mapping[str, Curve]  # the same of each request's mean gap, over time of its end
    ttft_cdf: Curve  # share of all requests (0 to 1) over seconds: one without a first token is never counted
    tbt_cdf: Curve  # share of all gaps
    t_s: Floats
    waiting: Mapping[str, Floats]  # by class, in the queue manager
    pools: tuple[Pool, ...]  # rows of t_s
    scalings: tuple[Scaling, ...] = ()  # the autoscaler's decisions, in order of time


def digest(result: Result) -> Digest:
    requests, met = result.requests, result.met()
    of_class = {slo.name: requests.slo_class == index for index, slo in enumerate(result.classes)}
    windows = max(1, min(_WINDOWS_MAX, len(requests) // _WINDOW_REQUESTS))
    edges = np.linspace(0.0, max(result.duration_s, 1e-9), windows + 1)
    thin = _Thinning(len(result.t_s))
    return Digest(
        scenario=result.scenario,
        policy=result.policy,
        seed=result.seed,
        classes=result.classes,
        summary=result.summary(),
        attainment={name: float(met[mine].mean()) if mine.any() else float("nan") for name, mine in of_class.items()},
        requests={name: int(mine.sum()) for name, mine in of_class.items()},
        ended={reason or _STILL_GOING: int((requests.reason == at).sum()) for at, reason in enumerate(REASONS)},
        counters=dict(result.counters),
        duration_s=result.duration_s,
        ttft=_over_time(requests.arrival_s, requests.ttft_s, edges),
        tbt=_over_time(requests.end_s, requests.tbt_s, edges),
        ttft_cdf=_cdf(requests.ttft_s),
        tbt_cdf=_cdf_of_counts(result.tbt),
        t_s=thin.last(result.t_s),
        waiting={name: thin.mean(values) for name, values in result.waiting.items()},
        pools=tuple(_thin_pool(pool, thin) for pool in result.pools),
        scalings=result.scalings,
    )


def _over_time(at_s: Floats, values: Floats, edges: Floats) -> dict[str, Curve]:
    window = np.searchsorted(edges, at_s, side="right") - 1  # nan sorts behind every edge: in no window
    middles = (edges[:-1] + edges[1:]) / 2
    by_window = [values[window == index] for index in range(len(middles))]
    return {
        name: Curve(middles, np.array([percentile(each, share) for each in by_window]))
        for name, share in (("p50", 0.50), ("p99", 0.99))
    }


def _cdf(values: Floats) -> Curve:
    known = values[~np.isnan(values)]
    if not len(known):
        return Curve(np.empty(0), np.empty(0))
    shares = np.linspace(0.0, 1.0, _QUANTILES)
    return Curve(np.quantile(known, shares), shares * len(known) / len(values))


def _cdf_of_counts(histogram: Histogram) -> Curve:
    total = int(histogram.counts.sum())
    if not total:
        return Curve(np.empty(0), np.empty(0))
    shares = np.concatenate(([0.0], np.cumsum(histogram.counts) / total))
    first, last = np.flatnonzero(histogram.counts)[[0, -1]]
    return Curve(histogram.edges[first : last + 2], shares[first : last + 2])


class _Thinning:
    """Means over runs of neighbouring samples, so that no more than POINTS_MAX are left."""

    def __init__(self, samples: int) -> None:
        step = max(1, -(-samples // POINTS_MAX))
        self._starts = np.arange(0, samples, step)
        self._ends = np.minimum(self._starts + step, samples)

    def last(self, values: Floats) -> Floats:
        return np.asarray(values[self._ends - 1], dtype=np.float64)

    def mean(self, values: Floats) -> Floats:
        if not len(values):
            return values
        return np.asarray(np.add.reduceat(values, self._starts) / (self._ends - self._starts), dtype=np.float64)


def _thin_pool(pool: Pool, thin: _Thinning) -> Pool:
    return Pool(
        name=pool.name,
        stages=pool.stages,
        gpus_each=pool.gpus_each,
        instances=thin.mean(pool.instances),
        busy_share=thin.mean(pool.busy_share),
        running=thin.mean(pool.running),
        waiting=thin.mean(pool.waiting),
        kv_share=thin.mean(pool.kv_share),
        power_w=thin.mean(pool.power_w),
    )
