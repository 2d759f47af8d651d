"""Results as a run of an hour might leave them: three classes, two pools, a burst, a death.

The figures follow from an arrival rate, a capacity and a policy's slack alone: enough to draw and to add up.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from headrace.core.slo import CLASSES
from headrace.sim.result import Floats, Histogram, Pool, Requests, Result

HOUR_S = 3_600.0
SAMPLE_S = 10.0
_NONE = 5  # of REASONS: it had not ended


def result(policy: str = "headrace", seed: int = 1, *, speed: float = 1.0, requests: int = 6_000) -> Result:
    """`speed` over 1: a policy that gets more out of the same machines."""
    rng = np.random.default_rng([seed, len(policy)])
    arrival_s = np.sort(np.concatenate([rng.uniform(0, HOUR_S, requests - requests // 5), _burst(rng, requests // 5)]))
    crowd = _crowding(arrival_s) / speed
    rows = _requests(rng, arrival_s, crowd, speed)
    t_s = np.arange(SAMPLE_S, HOUR_S + SAMPLE_S, SAMPLE_S)
    load = np.interp(t_s, arrival_s, crowd)
    return Result(
        scenario="evening-burst",
        policy=policy,
        seed=seed,
        classes=tuple(CLASSES.values()),
        requests=rows,
        tbt=_gaps(rng, rows, speed),
        t_s=t_s,
        sample_s=SAMPLE_S,
        pools=(_encoders(rng, t_s, load), _llms(rng, t_s, load)),
        waiting={
            name: np.maximum(0, load - 1) * share * 40
            for name, share in (("interactive", 1), ("batch-1", 2), ("batch-2", 6))
        },
        duration_s=HOUR_S,
        wall_s=3.2 / speed,
        gpu_hours=35.6,
        joules=float(2.4e7 / speed),
        counters={"deaths": 1, "evictions": 41, "swaps": 3, "transferred_bytes": 3.1e11},
    )


def nothing(policy: str = "headrace") -> Result:
    """A run to which no request came."""
    full = result(policy, requests=10)
    none = np.zeros(0, dtype=np.int64)
    columns: dict[str, Any] = {
        name: none if getattr(full.requests, name).dtype == np.int64 else np.zeros(0) for name in Requests.__slots__
    }
    empty = Histogram(full.tbt.edges, np.zeros_like(full.tbt.counts))
    return replace(full, requests=Requests(**columns), tbt=empty)


def _burst(rng: np.random.Generator, count: int) -> Floats:
    return np.clip(rng.normal(1_500.0, 120.0, count), 0.0, HOUR_S - 1.0)


def _crowding(arrival_s: Floats) -> Floats:
    """Load against capacity: about 0.6, over 2 in the burst, and half as much again while a worker is gone."""
    counts, edges = np.histogram(arrival_s, bins=120, range=(0.0, HOUR_S))
    load = counts / (len(arrival_s) * 0.8 / 120) * 0.6
    gone = (edges[:-1] > 2_400) & (edges[:-1] < 2_700)
    smooth = np.convolve(load * np.where(gone, 1.5, 1.0), np.ones(6) / 6, mode="same")
    return np.interp(arrival_s, edges[:-1], smooth)


def _requests(rng: np.random.Generator, arrival_s: Floats, crowd: Floats, speed: float) -> Requests:
    count = len(arrival_s)
    slo_class = rng.choice(3, count, p=[0.6, 0.3, 0.1])
    parts = rng.choice([0, 1, 2, 4], count, p=[0.5, 0.3, 0.1, 0.1])
    encode_s = parts * rng.lognormal(-2.0, 0.4, count)
    wait_s = np.maximum(0.0, crowd - 0.9) ** 2 * rng.lognormal(2.0, 0.7, count) * (1 + slo_class)
    prefill_s = rng.lognormal(-1.2, 0.6, count) * (0.6 + crowd)
    output = np.maximum(1, rng.lognormal(4.8, 0.9, count).astype(np.int64))
    first_s = arrival_s + encode_s + wait_s + prefill_s
    end_s = first_s + (output - 1) * rng.lognormal(-3.4, 0.25, count) / speed
    reason = rng.choice(5, count, p=[0.93, 0.05, 0.01, 0.005, 0.005])
    reason[first_s > HOUR_S] = _NONE
    reason[end_s > HOUR_S] = _NONE
    first_s[first_s > HOUR_S] = np.nan
    return Requests(
        arrival_s=arrival_s,
        ready_s=arrival_s + encode_s,
        dispatch_s=arrival_s + encode_s + wait_s,
        first_token_s=first_s,
        end_s=np.where(reason == _NONE, np.nan, end_s),
        input_tokens=rng.lognormal(6.0, 0.8, count).astype(np.int64) + 1,
        media_tokens=parts * 1_601,
        media_parts=parts,
        output_tokens=output,
        slo_class=slo_class,
        reason=reason,
        attempts=np.ones(count, dtype=np.int64),
        target_s=np.array([slo.ttft_s for slo in CLASSES.values()])[slo_class],
    )


def _gaps(rng: np.random.Generator, rows: Requests, speed: float) -> Histogram:
    edges = np.geomspace(1e-3, 10.0, 161)
    counts, _ = np.histogram(rng.lognormal(-3.4, 0.35, int(rows.output_tokens.sum())) / speed, edges)
    return Histogram(edges, counts)


def _encoders(rng: np.random.Generator, t_s: Floats, load: Floats) -> Pool:
    busy = np.clip(load * 0.5 + rng.normal(0, 0.03, len(t_s)), 0, 1)
    flat = np.full(len(t_s), 4.0)
    return Pool(
        "encoders", ("encode",), 1, flat, busy, busy * 12, np.maximum(0, load - 1) * 9, flat * 0, 4 * (90 + 250 * busy)
    )


def _llms(rng: np.random.Generator, t_s: Floats, load: Floats) -> Pool:
    up = np.where((t_s > 2_400) & (t_s < 2_700), 7.0, 8.0)
    busy = np.clip(load + rng.normal(0, 0.03, len(t_s)), 0, 1)
    waiting, power_w = np.maximum(0, load - 0.9) * 30, up * 4 * (90 + 280 * busy)
    return Pool("llm", ("prefill", "decode"), 4, up, busy, busy * 300, waiting, np.clip(load * 0.7, 0, 0.98), power_w)
