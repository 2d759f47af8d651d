"""The distribution of a request's output length: what the orders, the waiting-time estimator and admission read.

Its quantile function is linear in the logarithm between knots, so that mean and variance are exact sums.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
# No model writes more in one answer; where nobody set max_tokens it bounds the tail.
MOST_TOKENS = 1 << 20


@dataclass(frozen=True, slots=True)
class Prediction:
    """Output tokens still to come, in whole: `x[i]` is the `p[i]`-quantile of the total length, less `emitted`.

    p runs from 0 to 1 and grows; x is at least 1 and never falls. All answers are in tokens, or tokens squared.
    """

    p: tuple[float, ...]
    x: tuple[float, ...]
    most: int = MOST_TOKENS  # the request ends here at the latest
    emitted: int = 0

    def __post_init__(self) -> None:
        assert len(self.p) == len(self.x) >= 2
        assert self.p[0] == 0.0
        assert self.p[-1] == 1.0
        assert self.x[0] > 0
        assert self.x[-1] < math.inf

    @staticmethod
    def of(values: Sequence[float], most: int = MOST_TOKENS) -> "Prediction":
        """From the values at LEVELS, in tokens; those out of order or below 1 are put right.

        The last hundredth reaches as far again (as a ratio) as from 0.95 to 0.99, and the first twentieth likewise.
        """
        assert len(values) == len(LEVELS)
        x, least = [], 1.0
        for value in values:
            least = max(least, min(float(value), MOST_TOKENS))  # a value that is not a number becomes the one below it
            x.append(least)
        ends = max(1.0, x[0] * x[0] / x[1]), min(float(MOST_TOKENS), x[-1] * x[-1] / x[-2])
        return Prediction((0.0, *LEVELS, 1.0), (ends[0], *x, ends[1])).capped(most)

    @staticmethod
    def exactly(tokens: float, most: int = MOST_TOKENS) -> "Prediction":
        return Prediction((0.0, 1.0), (max(1.0, tokens),) * 2).capped(most)

    def capped(self, most: int) -> "Prediction":
        """Of the same request if it is cut off at `most` output tokens."""
        bound = max(1, min(most, self.most))
        x = self.x if self.x[-1] <= bound else tuple(min(value, float(bound)) for value in self.x)
        return replace(self, x=x, most=bound)

    def given(self, emitted: int) -> "Prediction":
        """What remains after `emitted` further tokens without an end.

        A request that outlives its whole distribution is taken to last up to as long again: the older, the longer.
        """
        if emitted <= 0:
            return self
        total = self.emitted + emitted
        survived = _share_up_to(self.p, self.x, total)
        if survived >= 1.0:
            last = max(total + 1.0, min(2.0 * total, float(self.most)))
            return Prediction((0.0, 1.0), (total + 1.0, last), max(self.most, total + 1), total)
        first = bisect_right(self.p, survived)
        rest = 1.0 - survived
        p = (0.0, *((level - survived) / rest for level in self.p[first:-1]), 1.0)
        return Prediction(p, (max(_at(self.p, self.x, survived), float(total)), *self.x[first:]), self.most, total)

    def quantile(self, p: float) -> float:
        assert 0.0 <= p <= 1.0
        return _at(self.p, self.x, p) - self.emitted

    def exceeds(self, tokens: float) -> float:
        """The probability that more than `tokens` are to come."""
        return 1.0 - _share_up_to(self.p, self.x, tokens + self.emitted)

    @property
    def median(self) -> float:
        return self.quantile(0.5)

    @property
    def mean(self) -> float:
        return self.moments[0]

    @property
    def variance(self) -> float:
        return self.moments[1]

    @property
    def moments(self) -> tuple[float, float]:
        """Mean and variance: integrals of exp(linear), and of its square, over each piece."""
        first, second = _moments(self.p, self.x)
        return first - self.emitted, max(0.0, second - first * first)

    @property
    def values(self) -> tuple[float, ...]:
        """At LEVELS: `Prediction.of(values, most)` makes it again, but for what lies beyond them."""
        return tuple(self.quantile(level) for level in LEVELS)


@lru_cache(4_096)  # requests of a kind without a predictor share one distribution
def _moments(p: tuple[float, ...], x: tuple[float, ...]) -> tuple[float, float]:
    """Mean and mean square."""
    first = second = 0.0
    for i in range(len(p) - 1):
        mean, square = piece(x[i], x[i + 1])
        first += (p[i + 1] - p[i]) * mean
        second += (p[i + 1] - p[i]) * square
    return first, second


def piece(a: float, b: float) -> tuple[float, float]:
    """Mean and mean square of exp over a line from log a to log b: (b - a) / log(b / a) is the first."""
    if b < a * (1 + 1e-6):
        middle = (a + b) / 2
        return middle, middle * middle
    log = math.log(b / a)
    return (b - a) / log, (b * b - a * a) / (2 * log)


def _at(p: Sequence[float], x: Sequence[float], level: float) -> float:
    i = min(bisect_right(p, level), len(p) - 1)
    share = (level - p[i - 1]) / (p[i] - p[i - 1])
    return float(x[i - 1] * (x[i] / x[i - 1]) ** share)


def _share_up_to(p: Sequence[float], x: Sequence[float], value: float) -> float:
    """The probability of at most `value`; all of an atom counts."""
    i = bisect_right(x, value)
    if i == 0:
        return 0.0
    if i == len(x):
        return 1.0
    return p[i - 1] + (p[i] - p[i - 1]) * math.log(value / x[i - 1]) / math.log(x[i] / x[i - 1])
