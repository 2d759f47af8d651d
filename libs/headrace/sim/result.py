"""What a simulated run leaves behind: one row a request, time series, and the figures that people compare."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.core.slo import SloClass

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

REASONS = ("stop", "length", "cancelled", "deadline", "error", "")  # "": it had not ended when the run did
# What the queue does beyond sending requests out. Swaps: loads, and workers that leave to come back as another model.
OPERATIONS = ("swaps", "loads_cold", "loads_warm", "evictions", "resumes", "moves", "scalings")
FINISHED = (0, 1)  # of REASONS: the whole answer was given


@dataclass(frozen=True, slots=True)
class Requests:
    """Columns of equal length, in order of arrival. Seconds since the run's beginning; nan: it never came to that."""

    arrival_s: Floats
    ready_s: Floats  # its media were encoded
    dispatch_s: Floats  # last sent to prefill
    first_token_s: Floats
    end_s: Floats
    input_tokens: Ints  # of text
    media_tokens: Ints
    media_parts: Ints
    output_tokens: Ints  # emitted
    slo_class: Ints  # index into Result.classes
    reason: Ints  # index into REASONS
    attempts: Ints
    target_s: Floats  # for the first token: the request's own, or its class's

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def ttft_s(self) -> Floats:
        return self.first_token_s - self.arrival_s

    @property
    def jct_s(self) -> Floats:
        """Of those that finished, nan for the others."""
        return np.where(self.finished, self.end_s - self.arrival_s, np.nan)

    @property
    def tbt_s(self) -> Floats:
        """Mean time between the tokens of a request; nan with fewer than two."""
        gaps = np.maximum(self.output_tokens - 1, 1)
        return np.where(self.finished & (self.output_tokens > 1), (self.end_s - self.first_token_s) / gaps, np.nan)

    @property
    def finished(self) -> NDArray[np.bool_]:
        return np.isin(self.reason, FINISHED)


@dataclass(frozen=True, slots=True)
class Pool:
    """What a pool of like workers did, sampled every Result.sample_s: rows of `t_s`."""

    name: str
    stages: tuple[str, ...]
    gpus_each: int
    instances: Floats  # up, at the sample
    busy_share: Floats  # of the interval, mean over instances: 0 to 1
    running: Floats  # sequences in batches, or parts in the tower, at the sample
    waiting: Floats  # at the workers: sequences waiting for prefill, parts for the tower
    kv_share: Floats  # of blocks reserved, at the sample
    power_w: Floats  # mean over the interval, all GPUs of the pool


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts between edges, len(edges) == len(counts) + 1; logarithmic edges, seconds."""

    edges: Floats
    counts: Ints

    def percentile(self, share: float) -> float:
        """Linear within a bin; nan when nothing was counted."""
        total = int(self.counts.sum())
        if not total:
            return float("nan")
        cumulated = np.cumsum(self.counts)
        at = int(np.searchsorted(cumulated, share * total, side="left"))
        below = int(cumulated[at - 1]) if at else 0
        within = (share * total - below) / max(1, int(self.counts[at]))
        return float(self.edges[at] + within * (self.edges[at + 1] - self.edges[at]))


@dataclass(frozen=True, slots=True)
class Scaling:
    """What an autoscaler decided for a pool; starting instances count."""

    t_s: float  # since the run's beginning
    pool: str
    instances_before: int
    instances: int
    reason: str


@dataclass(frozen=True, slots=True)
class Result:
    scenario: str
    policy: str
    seed: int
    classes: tuple[SloClass, ...]
    requests: Requests
    tbt: Histogram  # every gap between two tokens of a request
    t_s: Floats  # ends of the sampled intervals
    sample_s: float
    pools: tuple[Pool, ...]
    waiting: Mapping[str, Floats]  # by SLO class: in the queue manager, at the sample
    duration_s: float  # of the run: to its last end, or to its limit
    wall_s: float  # that simulating it took
    gpu_hours: float  # of instances that are up; with an autoscaler, of those that start too
    joules: float
    utilisation: float = float("nan")  # seconds that LLM workers compute iterations, of those that they are up
    planner_s: float = float("nan")  # of wall_s: in which the planner's plans were made
    counters: Mapping[str, float] = field(default_factory=dict)  # swaps, evictions, deaths, transferred bytes ...
    scalings: tuple[Scaling, ...] = ()  # in order of time

    def summary(self) -> dict[str, Any]:
        """The figures of one policy, in seconds; the keys that every simulation prints."""
        requests, finished = self.requests, self.requests.finished
        met = self.met()
        return {
            "requests": len(requests),
            "finished": int(finished.sum()),
            "wall_s": self.wall_s,
            "sim_requests_per_s": len(requests) / self.wall_s if self.wall_s else float("nan"),
            "ttft_p50_s": percentile(requests.ttft_s, 0.50),
            "ttft_p99_s": percentile(requests.ttft_s, 0.99),
            "tbt_p50_s": self.tbt.percentile(0.50),
            "tbt_p99_s": self.tbt.percentile(0.99),
            "jct_mean_s": mean(requests.jct_s),
            "jct_p99_s": percentile(requests.jct_s, 0.99),
            "attainment": float(met.mean()) if len(requests) else float("nan"),
            "goodput_rps": float(met.sum()) / self.duration_s if self.duration_s else float("nan"),
            "gpu_hours": self.gpu_hours,
            "joules": self.joules,
            "utilisation": self.utilisation,
            **{name: self.counters.get(name, 0.0) for name in OPERATIONS},
        }

    def met(self) -> NDArray[np.bool_]:
        """Which requests finished with their first token inside their own target, or their class's."""
        with np.errstate(invalid="ignore"):
            return self.requests.finished & (self.requests.ttft_s <= self.requests.target_s)


def percentile(values: Floats, share: float) -> float:
    """Linear interpolation over what is a number; nan when nothing is."""
    known = values[~np.isnan(values)]
    return float(np.quantile(known, share)) if len(known) else float("nan")


def mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
