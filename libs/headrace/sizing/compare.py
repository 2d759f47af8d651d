"""Layouts in the simulator: does each keep its promises at this traffic, with how many GPUs, which is cheapest."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headrace.characterize.parts import Parts
from headrace.core.types import StageName
from headrace.sim.result import Requests, Result, percentile
from headrace.sim.run import simulate
from headrace.sizing.choose import Layout, Sized
from headrace.sizing.fleet import NAMES, fleet_of
from headrace.sizing.traffic import Promise
from headrace.workload.arrival import Arrival
from headrace.workload.fleet import LinkName
from headrace.workload.scenario import Scenario

Bools = NDArray[np.bool_]
KEPT = 0.99  # of the requests: ModServe's threshold [P]
TRIES = 8  # an instance more, or less, each


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A layout, and what its simulation said."""

    layout: Layout
    kept: float  # share of requests answered whole, both promises kept
    goodput_rps: float
    ttft_p99_s: float
    tbt_p99_s: float  # of requests' means
    short: StageName  # where those that were late waited most
    busy: Mapping[str, float]  # by pool

    @property
    def gpu_s_per_good(self) -> float:
        """GPU seconds for each request whose promises were kept."""
        return self.layout.gpus / self.goodput_rps if self.goodput_rps else math.inf

    @property
    def keeps(self) -> bool:
        return self.kept >= KEPT


Times = Sequence[Sequence[Arrival]]  # several stretches of traffic: the busiest of each stage
Measure = Callable[[Layout], Confirmed]


def measuring(
    scenario: Scenario, times: Times, parts: Parts, promise: Promise, link: LinkName, policy: str, seed: int
) -> Measure:
    """The worst of several stretches of traffic."""

    def measure(layout: Layout) -> Confirmed:
        plain = replace(scenario, fleet=fleet_of(layout, parts, link), incidents=(), autoscale=None)
        runs = [confirmed(layout, simulate(plain, policy, seed, arrivals=each), promise) for each in times]
        worst = min(runs, key=lambda run: (run.kept, -run.ttft_p99_s))
        return replace(worst, busy={name: max(run.busy[name] for run in runs) for name in worst.busy})

    return measure


def confirmed(layout: Layout, result: Result, promise: Promise) -> Confirmed:
    requests = result.requests
    with np.errstate(invalid="ignore"):
        soon = requests.ttft_s <= promise.ttft_s
        steady = ~(requests.tbt_s > promise.tbt_s) if promise.tbt_s else np.ones(len(requests), bool)
    good = requests.finished & soon & steady
    # A pool that decodes is full when its KV room is: it computes whenever anybody is there.
    busy = {
        pool.name: float(np.mean(pool.kv_share if "decode" in pool.stages else pool.busy_share))
        for pool in result.pools
    }
    return Confirmed(
        layout,
        float(good.mean()),
        float(good.sum()) / max(1.0, float(requests.arrival_s.max() - requests.arrival_s.min())),
        percentile(requests.ttft_s, 0.99),
        percentile(requests.tbt_s, 0.99),
        _short(requests, soon, steady),
        busy,
    )


def _short(requests: Requests, soon: Bools, steady: Bools) -> StageName:
    """Of the stage that most of those who were late waited for longest."""
    if (~steady).sum() > (~soon).sum():
        return "decode"
    late, end_s = ~soon, np.nanmax(requests.arrival_s)
    ready_s = np.nan_to_num(requests.ready_s[late], nan=end_s)
    sent_s = np.nan_to_num(requests.dispatch_s[late], nan=end_s)
    first_s = np.nan_to_num(requests.first_token_s[late], nan=end_s)
    encoding, queue, rest = (
        (ready_s - requests.arrival_s[late]).sum(),
        (sent_s - ready_s).sum(),
        (first_s - sent_s).sum(),
    )
    if encoding > queue + rest:
        return "encode"
    return "decode" if queue > rest else "prefill"  # a request is sent out when decode has room for it


def settle(layout: Layout, measure: Measure, gpus_max: int) -> Confirmed:
    """As few instances as keep the promises in the simulator, within the GPUs: the pool that is short grows until they
    are kept; then each shrinks, the idlest first, while they still are."""
    last = measure(layout)
    for _ in range(TRIES):
        grown = _changed(last.layout, last.short, 1)
        if last.keeps or grown.gpus > gpus_max:
            break
        last = measure(grown)
    for _ in range(TRIES if last.keeps else 0):
        fewer = [
            _changed(last.layout, pool.chosen.stage.split("+")[0], -1)
            for pool in sorted(last.layout.pools, key=lambda pool: last.busy[NAMES[pool.chosen.stage]])
            if pool.count > 1
        ]
        kept = next((tried for each in fewer if (tried := measure(each)).keeps), None)
        if kept is None:
            break
        last = kept
    return last


def _changed(layout: Layout, stage: str, by: int) -> Layout:
    """The pool that has this stage."""
    pools = [
        Sized(pool.chosen, pool.count + by) if stage in pool.chosen.stage.split("+") else pool for pool in layout.pools
    ]
    return replace(layout, pools=tuple(pools))


def cheapest(found: list[Confirmed]) -> Confirmed:
    """Fewest GPUs of those that keep the promises, then most goodput; if none does, least GPU seconds a good answer."""
    keeping = [each for each in found if each.keeps]
    if keeping:
        return min(keeping, key=lambda each: (each.layout.gpus, -each.goodput_rps))
    return min(found, key=lambda each: each.gpu_s_per_good)
