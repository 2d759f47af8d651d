"""Arrival processes: generators of times since the beginning, in order, from a numpy Generator that is passed in.

Renewal processes start in equilibrium; a rate curve stretches their clock (time rescaling); bursts are random curves.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import gammaln

from headrace.workload.rates import Floats, RateCurve, constant, require

BLOCK = 8192  # gaps drawn at once: large enough that numpy's overhead is gone, small enough to stream
CV_MIN, CV_MAX = 0.02, 100.0  # the Weibull shape is sought between: 0.02 is a metronome, ServeGen's clients reach 6


class Gaps(Protocol):
    """Independent gaps of mean 1.

    The first is the wait from a random moment, whose density is (1 - F(x)) / mean (Cox, Renewal Theory, 1962, ch. 5):
    with it the expected count until t is exactly rate x t, which an ordinary start misses by (cv² - 1) / 2.
    """

    def first(self, rng: Generator) -> float: ...
    def draw(self, rng: Generator, n: int) -> Floats: ...


@dataclass(frozen=True)
class ExponentialGaps:
    def first(self, rng: Generator) -> float:
        return float(rng.standard_exponential())  # memoryless: the residual is a gap

    def draw(self, rng: Generator, n: int) -> Floats:
        return rng.standard_exponential(n)


@dataclass(frozen=True)
class GammaGaps:
    """Shape k = 1 / cv², scale 1 / k: mean 1, variance 1 / k."""

    cv: float

    def __post_init__(self) -> None:
        require(CV_MIN <= self.cv <= CV_MAX, "cv", f"between {CV_MIN} and {CV_MAX}")

    @property
    def shape(self) -> float:
        return self.cv**-2

    def first(self, rng: Generator) -> float:
        """Uniform within the gap that a random moment falls into; weighted by length, Gamma(k) is Gamma(k + 1)."""
        return float(rng.random() * rng.standard_gamma(self.shape + 1) / self.shape)

    def draw(self, rng: Generator, n: int) -> Floats:
        return rng.standard_gamma(self.shape, n) / self.shape


@dataclass(frozen=True)
class WeibullGaps:
    """Shape k solves cv² = Γ(1 + 2/k) / Γ(1 + 1/k)² - 1; scale 1 / Γ(1 + 1/k): mean 1."""

    cv: float

    def __post_init__(self) -> None:
        require(CV_MIN <= self.cv <= CV_MAX, "cv", f"between {CV_MIN} and {CV_MAX}")

    @cached_property
    def shape(self) -> float:
        target = math.log1p(self.cv**2)
        return float(brentq(lambda k: gammaln(1 + 2 / k) - 2 * gammaln(1 + 1 / k) - target, 0.05, 100.0, xtol=1e-12))

    @property
    def scale(self) -> float:
        return math.exp(-gammaln(1 + 1 / self.shape))

    def first(self, rng: Generator) -> float:
        """With w = (x / scale)^k, the law weighted by length is w^(1/k) e^-w: Gamma(1 + 1/k)."""
        return float(rng.random() * self.scale * rng.standard_gamma(1 + 1 / self.shape) ** (1 / self.shape))

    def draw(self, rng: Generator, n: int) -> Floats:
        return self.scale * rng.weibull(self.shape, n)


class Process(Protocol):
    """`blocks` yields arrays of times in order, all before `until_s`; `times` the same one by one."""

    def blocks(self, rng: Generator, until_s: float) -> Iterator[Floats]: ...
    def times(self, rng: Generator, until_s: float) -> Iterator[float]: ...


class _Process:
    def blocks(self, rng: Generator, until_s: float) -> Iterator[Floats]:
        raise AssertionError(f"{type(self).__name__} has no blocks")

    def times(self, rng: Generator, until_s: float) -> Iterator[float]:
        for block in self.blocks(rng, until_s):
            yield from block.tolist()


@dataclass(frozen=True)
class Modulated(_Process):
    """A renewal process whose clock runs at the curve's rate (time rescaling; Gerhardt and Nelson, Transforming Renewal
    Processes for Simulation of Nonstationary Arrival Processes, INFORMS J. Computing 21(4), 2009, inversion method).

    The n-th arrival is the time at which the curve's integral reaches the n-th point of a renewal process of rate 1.
    E[N(t)] is the curve's integral, exactly; Var[N(t)] / E[N(t)] tends to cv². Exponential gaps: a Poisson process.
    """

    curve: RateCurve
    gaps: Gaps = ExponentialGaps()

    def blocks(self, rng: Generator, until_s: float) -> Iterator[Floats]:
        end = float(self.curve.expected(np.array([until_s]))[0])
        mass = self.gaps.first(rng)
        while mass < end:
            size = int(min(BLOCK, (end - mass) * 1.1 + 16))
            marks = mass + np.concatenate(([0.0], np.cumsum(self.gaps.draw(rng, size))))
            mass = float(marks[-1])
            inside = marks[:-1]
            times = self.curve.when(inside[inside < end])
            times = times[times < until_s]  # a mark just under the end may round to it
            if len(times):
                yield times


@dataclass(frozen=True)
class Poisson(_Process):
    """Rate λ: gaps are exponential, cv 1, counts have index of dispersion 1."""

    rate_rps: float

    def blocks(self, rng: Generator, until_s: float) -> Iterator[Floats]:
        return Modulated(constant(self.rate_rps)).blocks(rng, until_s)


@dataclass(frozen=True)
class Gamma(_Process):
    """Gamma renewal: shape 1/cv², mean gap 1/rate. cv > 1 is burstier than Poisson, cv < 1 more regular."""

    rate_rps: float
    cv: float

    def blocks(self, rng: Generator, until_s: float) -> Iterator[Floats]:
        return Modulated(constant(self.rate_rps), GammaGaps(self.cv)).blocks(rng, until_s)


@dataclass(frozen=True)
class Weibull(_Process):
    """Weibull renewal: mean gap 1/rate, shape from cv (see WeibullGaps)."""

    rate_rps: float
    cv: float

    def blocks(self, rng: Generator, until_s: float) -> Iterator[Floats]:
        return Modulated(constant(self.rate_rps), WeibullGaps(self.cv)).blocks(rng, until_s)


@dataclass(frozen=True)
class Switching:
    """Two states in turn, calm and burst, each lasting exponentially long: the modulator of an MMPP.

    Factors multiply a rate; `normalised` makes their long-run mean 1, so that a curve keeps its own mean.
    """

    calm_s: float
    burst_s: float
    burst_factor: float  # of the calm rate
    calm_factor: float = 1.0

    def __post_init__(self) -> None:
        require(self.calm_s > 0 and self.burst_s > 0, "calm_s, burst_s", "mean stays above 0")
        require(self.burst_factor >= 0 and self.calm_factor >= 0, "burst_factor", "not negative")
        require(self.mean_factor > 0, "burst_factor", "above 0 in one of the two states")

    @property
    def burst_share(self) -> float:
        """Of the time, in the long run."""
        return self.burst_s / (self.calm_s + self.burst_s)

    @property
    def mean_factor(self) -> float:
        return self.calm_factor + self.burst_share * (self.burst_factor - self.calm_factor)

    def normalised(self) -> "Switching":
        mean = self.mean_factor
        return Switching(self.calm_s, self.burst_s, self.burst_factor / mean, self.calm_factor / mean)

    def states(self, rng: Generator, until_s: float) -> tuple[Floats, NDArray[np.bool_]]:
        """When each stay begins (the first at 0) and whether it is a burst; begun in the stationary law."""
        burst = bool(rng.random() < self.burst_share)
        starts, bursts, at = [0.0], [burst], 0.0
        while (at := at + float(rng.exponential(self.burst_s if burst else self.calm_s))) < until_s:
            burst = not burst
            starts.append(at)
            bursts.append(burst)
        return np.array(starts), np.array(bursts)

    def over(self, curve: RateCurve, rng: Generator, until_s: float) -> RateCurve:
        starts, bursts = self.states(rng, until_s)
        return curve.times_steps(starts, np.where(bursts, self.burst_factor, self.calm_factor), until_s)

    def dispersion(self, rate_rps: float, window_s: float) -> float:
        """Index of dispersion of counts, Var N(t) / E N(t), of Poisson arrivals at `rate_rps` x factor.

        1 + 2 p (1-p) d² / (s m) x (1 - (1 - e^(-s t)) / (s t)), with p the burst share, s the sum of both leaving
        rates, d the difference of the two rates and m their mean (Fischer and Meier-Hellstern, The Markov-modulated
        Poisson process (MMPP) cookbook, Performance Evaluation 18, 1993).
        """
        p, s = self.burst_share, 1 / self.calm_s + 1 / self.burst_s
        d, m = rate_rps * (self.burst_factor - self.calm_factor), rate_rps * self.mean_factor
        st = s * window_s
        return 1 + 2 * p * (1 - p) * d * d / (s * m) * (1 + math.expm1(-st) / st)


@dataclass(frozen=True)
class Bursts(_Process):
    """Arrivals over a curve whose rate a two-state chain multiplies: over a constant curve with exponential gaps, the
    two-state MMPP. The chain is normalised first: the curve's mean stays."""

    curve: RateCurve
    switching: Switching
    gaps: Gaps = ExponentialGaps()

    def blocks(self, rng: Generator, until_s: float) -> Iterator[Floats]:
        curve = self.switching.normalised().over(self.curve, rng, until_s)
        return Modulated(curve, self.gaps).blocks(rng, until_s)
