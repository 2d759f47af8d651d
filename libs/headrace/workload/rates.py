"""Request rates as functions of time: piecewise linear, so that their integral and its inverse are closed forms.

Day and week profiles, steps and random bursts are all such curves; processes.py turns one into arrival times.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
WEEK_S = 7 * DAY_S


class ProcessError(ValueError):
    """A rate or an arrival process that cannot be: names the field and what it must be."""


def require(holds: bool, field: str, must: str) -> None:
    if not holds:
        raise ProcessError(f"{field}: {must}")


@dataclass(frozen=True)
class RateCurve:
    """Requests per second over time, linear between breakpoints; two breakpoints at one time are a step.

    Begins at 0. With `period_s` it repeats for ever (the last breakpoint is the end of the period); without, the last
    rate goes on for ever, and a last rate of 0 ends the traffic.
    """

    at_s: tuple[float, ...]
    rate_rps: tuple[float, ...]
    period_s: float = 0.0

    def __post_init__(self) -> None:
        ats, rates = self.at_s, self.rate_rps
        require(len(ats) == len(rates) > 0, "rate_rps", "one rate for each of at_s, at least one")
        require(ats[0] == 0, "at_s", "the first breakpoint is at 0")
        require(bool(np.all(np.diff(ats) >= 0)), "at_s", "breakpoints in order of time")
        require(all(math.isfinite(r) and r >= 0 for r in rates), "rate_rps", "finite and not negative")
        require(not self.period_s or self.period_s == ats[-1] > 0, "period_s", "equal to the last breakpoint")
        require(not self.period_s or self._mass[-1] > 0, "rate_rps", "a curve that repeats must have some traffic")

    @cached_property
    def _times(self) -> Floats:
        return np.asarray(self.at_s, dtype=np.float64)

    @cached_property
    def _rates(self) -> Floats:
        return np.asarray(self.rate_rps, dtype=np.float64)

    @cached_property
    def _mass(self) -> Floats:
        """Requests expected until each breakpoint."""
        t, r = self._times, self._rates
        return np.concatenate(([0.0], np.cumsum(np.diff(t) * (r[1:] + r[:-1]) / 2)))

    @cached_property
    def _slopes(self) -> Floats:
        """Of the segment behind each breakpoint; steps and the last one have none."""
        width, rise = np.diff(self._times), np.diff(self._rates)
        return np.append(np.divide(rise, width, out=np.zeros_like(width), where=width > 0), 0.0)

    def rate(self, at_s: Floats) -> Floats:
        inside = at_s % self.period_s if self.period_s else at_s
        i = np.searchsorted(self._times, inside, side="right") - 1
        return np.asarray(self._rates[i] + self._slopes[i] * (inside - self._times[i]))

    def expected(self, at_s: Floats) -> Floats:
        """Requests expected from 0 until each time: the integral of the rate."""
        laps, inside = np.divmod(at_s, self.period_s) if self.period_s else (np.zeros_like(at_s), at_s)
        i = np.searchsorted(self._times, inside, side="right") - 1
        dt = inside - self._times[i]
        return np.asarray(laps * self._mass[-1] + self._mass[i] + dt * (self._rates[i] + self._slopes[i] * dt / 2))

    def when(self, requests: Floats) -> Floats:
        """The inverse of `expected`; infinity where the traffic ends before.

        Within a segment r x + a x²/2 = y is solved as x = 2 y / (r + sqrt(r² + 2 a y)), which has no cancellation and
        no division by the slope.
        """
        lap = self._mass[-1] if self.period_s else np.inf
        laps, y = np.divmod(requests, lap) if self.period_s else (np.zeros_like(requests), requests)
        i = np.searchsorted(self._mass, y, side="right") - 1
        if self.period_s:
            i = np.minimum(i, len(self._mass) - 2)
        y = y - self._mass[i]
        root = np.sqrt(np.maximum(self._rates[i] ** 2 + 2 * self._slopes[i] * y, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            x = np.where(y > 0, 2 * y / (self._rates[i] + root), 0.0)
        return np.asarray(laps * self.period_s + self._times[i] + x)

    def mean_rps(self, duration_s: float) -> float:
        return float(self.expected(np.array([duration_s]))[0]) / duration_s

    def scaled(self, factor: float) -> "RateCurve":
        return RateCurve(self.at_s, tuple(r * factor for r in self.rate_rps), self.period_s)

    def shifted(self, by_s: float) -> "RateCurve":
        """A curve that repeats, begun `by_s` later: a week's profile from its Thursday."""
        require(self.period_s > 0, "period_s", "only a curve that repeats can be shifted")
        by_s %= self.period_s
        if not by_s:
            return self
        at = float(self.rate(np.array([by_s]))[0])
        points = list(zip(self.at_s, self.rate_rps, strict=True))
        late = [(t - by_s, r) for t, r in points if t > by_s]
        early = [(t + self.period_s - by_s, r) for t, r in points if t <= by_s]
        ordered = [(0.0, at), *late, *early, (self.period_s, at)]
        return RateCurve(tuple(t for t, _ in ordered), tuple(r for _, r in ordered), self.period_s)

    def times_steps(self, at_s: Floats, factor: Floats, until_s: float) -> "RateCurve":
        """This curve until `until_s`, multiplied by a step function that holds `factor[i]` from `at_s[i]` on."""
        assert at_s[0] == 0 < until_s
        cuts = np.unique(np.concatenate((at_s[at_s < until_s], self._breaks(until_s), [until_s])))
        held = factor[np.searchsorted(at_s, cuts[:-1], side="right") - 1]
        # From two points inside each stretch: at a cut itself rounding decides which side of a step is seen.
        width = np.diff(cuts)
        early, late = self.rate(cuts[:-1] + width / 4), self.rate(cuts[:-1] + width * 3 / 4)
        begin, end = np.maximum(1.5 * early - 0.5 * late, 0.0) * held, np.maximum(1.5 * late - 0.5 * early, 0.0) * held
        times = np.column_stack((cuts[:-1], cuts[1:])).ravel()
        return RateCurve(tuple(times.tolist()), tuple(np.column_stack((begin, end)).ravel().tolist()))

    def _breaks(self, until_s: float) -> Floats:
        inner = self._times[1:]
        if not self.period_s:
            return np.asarray(inner[inner < until_s])
        laps = np.arange(math.ceil(until_s / self.period_s))[:, None] * self.period_s
        every = np.unique((laps + inner[None, :]).ravel())
        return np.asarray(every[every < until_s])


def constant(rate_rps: float) -> RateCurve:
    return RateCurve((0.0,), (rate_rps,))


def hourly(rates: Sequence[float], mean_rps: float) -> RateCurve:
    """A profile of one value per hour (24: a day, 168: a week) as a curve through the middles of its hours.

    It repeats, and its mean over one period is `mean_rps`.
    """
    require(len(rates) >= 2, "rates", "at least two hours")
    seam = (rates[0] + rates[-1]) / 2
    period_s = len(rates) * HOUR_S
    at_s = (0.0, *((i + 0.5) * HOUR_S for i in range(len(rates))), period_s)
    curve = RateCurve(at_s, (seam, *rates, seam), period_s)
    return curve.scaled(mean_rps / curve.mean_rps(period_s))


def diurnal(mean_rps: float, swing: float = 0.5, peak_hour: float = 14.0) -> RateCurve:
    """A day: mean (1 + swing cos(hours from the peak)), sampled each hour. `swing` 0..1; peak / trough is
    (1 + swing) / (1 - swing). The shape is ours [I]: real profiles go into `hourly`."""
    require(0 <= swing <= 1, "swing", "between 0 and 1")
    rates = [1 + swing * math.cos((hour + 0.5 - peak_hour) / 24 * 2 * math.pi) for hour in range(24)]
    return hourly(rates, mean_rps)
