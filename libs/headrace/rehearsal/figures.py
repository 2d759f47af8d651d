"""What is made of samples: overshoot, settling, recovery, goodput, attainment. Pure; seconds on any one clock.

Goodput is output tokens a second of requests that kept their class's target for the first token: tokens come evenly,
where ends of requests come by ones. Thresholds are what is wanted: within 3 % after 2 s, settled in 10 s, 97 % again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.rehearsal.load import Asked

Floats = NDArray[np.float64]
TOLERATED = 0.03  # above a limit
REACT_S = 2.0  # in which a lower limit must be kept: the fall from the old one is not overshoot
STEADY = 0.10  # of its later mean, within which goodput counts as steady
SMOOTH_S = 4.0  # the mean that is looked at for that
BACK = 0.97  # of what was before
HOLD_S = 5.0  # for so long, at least
STEP_S = 0.25  # of the grids
READINGS_S = 1.25  # from one of a device to the next, at most


@dataclass(frozen=True, slots=True)
class Series:
    """Values at times that rise evenly."""

    at_s: Floats
    values: Floats

    def within(self, from_s: float, to_s: float) -> "Series":
        chosen = (self.at_s >= from_s - 1e-9) & (self.at_s <= to_s + 1e-9) & np.isfinite(self.values)
        return Series(self.at_s[chosen], self.values[chosen])


@dataclass(frozen=True, slots=True)
class Overshoot:
    share: float  # the most above the limit, after REACT_S, as a share of it; 0: never above
    seconds: float  # above the tolerated, from the step on
    watts: float  # the most above the limit, after REACT_S


def before_the_next(power: Series, to_s: float) -> Series:
    """Power until what follows at to_s shows in it: between two readings, a second apart, energy is a straight line."""
    return power.within(float(power.at_s[0]), to_s - READINGS_S) if len(power.at_s) else power


def overshoot(power: Series, limit_w: float, from_s: float, to_s: float) -> Overshoot:
    """Of a limit that holds from from_s to to_s."""
    assert limit_w > 0
    seen, late = power.within(from_s, to_s), power.within(from_s + REACT_S, to_s)
    most_w = float(late.values.max(initial=-math.inf)) - limit_w if len(late.values) else math.nan
    over = seen.values > limit_w * (1.0 + TOLERATED)
    step_s = float(np.median(np.diff(seen.at_s))) if len(seen.at_s) > 1 else 0.0
    return Overshoot(max(0.0, most_w) / limit_w, float(over.sum()) * step_s, max(0.0, most_w))


def settled_s(power: Series, limit_w: float, goodput: Series, from_s: float, to_s: float) -> float | None:
    """From the step until power stays within the limit and goodput stays near its mean of the phase's second half.

    None: not within the phase."""
    half_s = (from_s + to_s) / 2.0
    later = goodput.within(half_s, to_s).values
    if not len(later):
        return None
    mean = float(later.mean())
    edge_s = min(SMOOTH_S, half_s - from_s) / 2.0  # there the mean of SMOOTH_S looks into the next phase
    drawn, served = power.within(from_s, to_s), goodput.within(from_s, to_s - edge_s)
    unsettled = np.concatenate(
        (
            drawn.at_s[drawn.values > limit_w * (1.0 + TOLERATED)],
            served.at_s[np.abs(served.values - mean) > STEADY * mean],
        )
    )
    if not len(drawn.at_s) or not len(served.at_s):
        return None
    last_s = float(unsettled.max(initial=from_s))
    return last_s - from_s if last_s < served.at_s[-1] - 1e-9 else None


def recovered_s(goodput: Series, before: float, from_s: float, to_s: float) -> float | None:
    """From the step back until goodput is at BACK of before: its mean over the next HOLD_S (half of a phase that is
    shorter than two of them), and over all that follows.

    None: never. goodput: not smoothed."""
    seen = goodput.within(from_s, to_s)
    held = min(round(HOLD_S / STEP_S), len(seen.values) // 2)
    if not held:
        return None
    sums = np.concatenate(([0.0], np.cumsum(seen.values)))
    starts = np.arange(len(seen.values) - held + 1)
    soon = (sums[starts + held] - sums[starts]) / held
    rest = (sums[-1] - sums[starts]) / (len(seen.values) - starts)
    good = np.flatnonzero((soon >= BACK * before) & (rest >= BACK * before))
    return float(seen.at_s[good[0]] - from_s) if len(good) else None


# --- requests ---


def kept(row: Asked, targets_s: Mapping[str, float]) -> bool:
    """Its first token came in time, and nothing failed."""
    return not row.failure and row.ttft_s <= targets_s[row.slo_class]


def goodput(rows: Sequence[Asked], targets_s: Mapping[str, float], at_s: Floats) -> Series:
    """Tokens a second in the STEP_S before each time, of requests that kept their targets."""
    edges = np.append(at_s - STEP_S, at_s[-1])
    came = [pair for row in rows if kept(row, targets_s) for pair in row.tokens if pair[0] < at_s[-1]]
    times, counts = np.array([at for at, _ in came]), np.array([count for _, count in came], float)
    found, _ = np.histogram(times, edges, weights=counts)
    return Series(at_s, found / STEP_S)


def smooth(series: Series, window_s: float = SMOOTH_S) -> Series:
    """The mean around each time; at the ends of what is there."""
    sums = np.concatenate(([0.0], np.cumsum(series.values)))
    at, half = np.arange(len(series.values)), max(1, round(window_s / STEP_S / 2.0))
    starts, stops = np.maximum(at - half, 0), np.minimum(at + half, len(at))
    return Series(series.at_s, (sums[stops] - sums[starts]) / np.maximum(stops - starts, 1))


def mean(series: Series, from_s: float, to_s: float) -> float:
    values = series.within(from_s, to_s).values
    return float(values.mean()) if len(values) else math.nan


def arrived(rows: Sequence[Asked], from_s: float, to_s: float) -> list[Asked]:
    return [row for row in rows if from_s <= row.arrival_s < to_s]


def attainment(rows: Sequence[Asked], targets_s: Mapping[str, float]) -> dict[str, float]:
    """By class: share of requests that kept their target; nan for a class without requests."""
    found = {}
    for name in targets_s:
        own = [kept(row, targets_s) for row in rows if row.slo_class == name]
        found[name] = sum(own) / len(own) if own else math.nan
    return found


def ttft_percentiles(rows: Sequence[Asked], shares: Sequence[float]) -> list[float]:
    """Seconds, of requests that had a first token; nan without any."""
    values = [row.ttft_s for row in rows if not math.isnan(row.first_s)]
    return [float(np.quantile(values, share)) if values else math.nan for share in shares]


def tbt_percentiles(rows: Sequence[Asked], from_s: float, to_s: float, shares: Sequence[float]) -> list[float]:
    """Seconds between one message of tokens and the next, of those that came between two times."""
    gaps = [
        after - before
        for row in rows
        for (before, _), (after, _) in zip(row.tokens, row.tokens[1:], strict=False)
        if from_s <= after < to_s
    ]
    return [float(np.quantile(gaps, share)) if gaps else math.nan for share in shares]
