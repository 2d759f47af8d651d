"""One simulated run: a system, a model, traffic and a seed in, the figures of a row out."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headrace.sim.result import Floats, Requests, Result
from headrace.sim.run import simulate
from headrace.workload.fleet import PoolSpec
from headrace.workload.queueing import Queueing
from loadtest.reproduce.modserve_capacity import alone_s, split_rps, whole_rps
from loadtest.reproduce.modserve_systems import (
    PAPER_SHAPE,
    REPEATS,
    SYSTEMS,
    Shape,
    pools,
    queueing,
    scenario,
)
from loadtest.reproduce.modserve_traffic import Targets, Traffic, requests

WARM_SHARE = 1 / 6  # of the requests, the first: the fleet is still empty
ISOLATED_APART_S = 30.0


@dataclass(frozen=True, slots=True)
class Run:
    model: str
    system: str  # of SYSTEMS
    traffic: Traffic
    seed: int
    targets: Targets  # that the order of slack goes by
    shape: Shape = PAPER_SHAPE
    encode_times: float = 1.0
    by_size: bool = False  # targets in proportion to what each request takes alone, instead of its kind's

    def __str__(self) -> str:
        return f"{self.model}, {self.system}, {self.traffic.rate_rps:g}/s, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Isolated:
    """Requests one at a time on a monolith of one instance: what targets are multiples of."""

    model: str
    seed: int
    requests: int = 300
    encode_times: float = 1.0

    def __str__(self) -> str:
        return f"{self.model} alone, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Saturated:
    """Twice what the fleet can do, until all of it is done: raw capacity."""

    model: str
    system: str
    requests: int
    seed: int

    def __str__(self) -> str:
        return f"{self.model}, {self.system}, saturated, seed {self.seed}"


def carry_out_saturated(job: Saturated) -> dict[str, Any]:
    system = SYSTEMS[job.system]
    most = whole_rps(job.model, PAPER_SHAPE) if system.monolith else split_rps(job.model, PAPER_SHAPE)
    asked = requests(job.model, Traffic(2 * most, job.requests, bursty=False), job.seed, Targets(1.0, 1.0))
    fleet = pools(replace(system, line="fifo"), PAPER_SHAPE, 1.0)
    place = scenario(job.system, job.model, fleet, queueing(system), asked[-1].at_s)
    told = simulate(place, system.policy, job.seed, arrivals=asked).requests
    # Not the rate in the middle: questions of text are done long before the others, and would count for more.
    return {"rps": float(len(told) / np.nanmax(told.first_token_s))}


def carry_out(run: Run) -> dict[str, Any]:
    system = SYSTEMS[run.system]
    traffic = replace(run.traffic, repeats=REPEATS.get(run.system, 0.0))
    asked = requests(run.model, traffic, run.seed, run.targets)
    alone = np.array([alone_s(run.model, run.encode_times, each) for each in asked])
    if run.by_size:
        factor = run.targets.image_s / np.median(alone[[len(each.parts) == 1 for each in asked]])
        asked = [replace(each, ttft_s=factor * s) for each, s in zip(asked, alone.tolist(), strict=True)]
    fleet = pools(system, run.shape, run.encode_times)
    place = scenario(run.system, run.model, fleet, queueing(system), asked[-1].at_s)
    result = simulate(place, system.policy, run.seed, arrivals=asked, settings=dict(system.settings))
    return row_of(result, alone)


def carry_out_isolated(job: Isolated) -> dict[str, Any]:
    drawn = requests(job.model, Traffic(1.0, job.requests), job.seed, Targets(1.0, 1.0))
    asked = [replace(each, at_s=at * ISOLATED_APART_S) for at, each in enumerate(drawn)]
    fleet = (_whole(job.encode_times),)
    place = scenario("isolated", job.model, fleet, Queueing("round-robin", True, 1 << 30), asked[-1].at_s)
    result = simulate(place, "fcfs", job.seed, arrivals=asked)
    told, ttft_s, tbt_s = result.requests, result.requests.ttft_s, result.requests.tbt_s
    images = told.media_parts
    ours_s = np.array([alone_s(job.model, job.encode_times, each) for each in asked])
    return {
        "ttft_text_s": float(np.median(ttft_s[images == 0])),
        "ttft_image_s": float(np.median(ttft_s[images == 1])),
        "ttft_sixteen_s": float(np.median(ttft_s[images == 16])) if (images == 16).any() else float("nan"),
        "tbt_s": float(np.nanmedian(tbt_s)),
        "reckoned_off": float(np.max(np.abs(ours_s / ttft_s - 1))),  # of alone_s(), at most
    }


def _whole(encode_times: float) -> PoolSpec:
    return pools(SYSTEMS["monolith"], Shape(whole=1), encode_times)[0]


def row_of(result: Result, alone: Floats) -> dict[str, Any]:
    """Of the requests behind the first WARM_SHARE; alone: seconds, in order of arrival."""
    told = result.requests
    counted = np.arange(len(told)) >= round(WARM_SHARE * len(told))
    ttft_s, tbt_s = told.ttft_s[counted], told.tbt_s[counted]
    image = told.media_parts[counted] > 0
    finished = told.finished[counted]
    return {
        "requests": int(counted.sum()),
        "finished": float(finished.mean()),
        "ttft_mean_s": float(np.nanmean(ttft_s)),
        "ttft_p50_s": _at(ttft_s, 0.5),
        "ttft_p90_s": _at(ttft_s, 0.9),
        "ttft_p99_s": _at(ttft_s, 0.99),
        "text_p99_s": _at(ttft_s[~image], 0.99),
        "image_p99_s": _at(ttft_s[image], 0.99),
        "text_mean_s": _mean(ttft_s[~image]),
        "image_mean_s": _mean(ttft_s[image]),
        "slowdown_p99": _at(ttft_s / alone[counted], 0.99),  # against itself alone on a monolith
        "tbt_p99_s": _at(tbt_s, 0.99),  # of the requests' means
        "tbt_mean_s": _mean(tbt_s),
        "gap_p99_s": result.tbt.percentile(0.99),
        "rps": _throughput(told),
        "utilisation": result.utilisation,
        "cache_hits": result.counters.get("encoder_cache_hits", 0.0),
        "gpu_hours": result.gpu_hours,
        "wall_s": result.wall_s,
    }


def _throughput(told: Requests) -> float:
    """First tokens a second while requests come, behind the first WARM_SHARE of that time."""
    last_s = float(told.arrival_s[-1])
    since_s = WARM_SHARE * last_s
    with np.errstate(invalid="ignore"):
        said = ((told.first_token_s > since_s) & (told.first_token_s <= last_s)).sum()
    return float(said) / (last_s - since_s)


def _at(values: Floats, share: float) -> float:
    known = values[~np.isnan(values)]
    return float(np.quantile(known, share)) if len(known) else float("nan")


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
