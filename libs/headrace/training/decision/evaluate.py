"""A policy beside its expert on the same seeds: cost ratios with paired intervals, runaways; and its latency."""

import time
from dataclasses import dataclass

import numpy as np

from headrace.training.decision.data import Floats
from headrace.training.decision.roll import Policy

RESAMPLES = 2_000
AWAY = 10.0  # times the expert's cost on the same seed


@dataclass(frozen=True, slots=True)
class Beside:
    """ratio of mean costs and its 95 % interval over seeds; median of the seeds' own ratios; share that ran away."""

    ratio: float
    low: float
    high: float
    median: float
    away: float


def beside(own: Floats, other: Floats) -> Beside:
    """Costs of episodes, the same seeds in the same order."""
    low, high = paired(own, other)
    each = own / other
    away = float((each > AWAY).mean())
    return Beside(float(own.mean() / other.mean()), low, high, float(np.median(each)), away)


def paired(own: Floats, other: Floats) -> tuple[float, float]:
    """Percentile bootstrap of the ratio of means; a seed is drawn with both of its costs (Efron 1979)."""
    drawn = np.random.default_rng(0).integers(len(own), size=(RESAMPLES, len(own)))
    low, high = np.quantile(own[drawn].mean(axis=1) / other[drawn].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def step_ms(policy: Policy, steps: int) -> list[float]:
    """Milliseconds of each step of one environment, its window full."""
    rolled, rng, took = policy.begin(1), np.random.default_rng(0), []
    for step in range(policy.context + steps):
        seen = policy.scale.middle + policy.scale.spread * rng.standard_normal((1, policy.own.observations))
        began = time.perf_counter()
        actions = rolled.act(seen)
        if step >= policy.context:
            took.append(1e3 * (time.perf_counter() - began))
        rolled.done(actions, np.zeros(1))
    return took
