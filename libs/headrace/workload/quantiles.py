"""Token counts and sizes drawn from a table of quantiles: linear in the logarithm between its points.

A table of five to twenty points is what papers and plots give; nothing is assumed beyond them.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from headrace.workload.rates import Floats, require

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Quantiles:
    """`x[i]` is the `p[i]`-quantile; p runs from 0 (the least value, above 0) to 1 (the greatest)."""

    p: tuple[float, ...]
    x: tuple[float, ...]

    def __post_init__(self) -> None:
        require(len(self.p) == len(self.x) >= 2, "x", "one value for each p, at least two")
        require(self.p[0] == 0 and self.p[-1] == 1, "p", "from 0 to 1")
        require(all(np.diff(self.p) > 0), "p", "in growing order")
        require(self.x[0] > 0 and all(np.diff(self.x) >= 0), "x", "above 0 and never falling")

    @cached_property
    def _logs(self) -> Floats:
        return np.log(np.asarray(self.x, dtype=np.float64))

    def at(self, p: Floats) -> Floats:
        return np.exp(np.interp(p, self.p, self._logs))

    def draw(self, rng: Generator, n: int) -> Floats:
        return self.at(rng.random(n))

    def counts(self, rng: Generator, n: int) -> Ints:
        """Whole numbers of at least 1."""
        return np.maximum(np.rint(self.draw(rng, n)), 1).astype(np.int64)


@dataclass(frozen=True)
class Shares:
    """A discrete distribution: weights need not add up to 1."""

    values: tuple[int, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        require(len(self.values) == len(self.weights) > 0, "weights", "one for each value, at least one")
        require(all(np.diff(self.values) > 0), "values", "in growing order")
        require(min(self.weights) >= 0 and sum(self.weights) > 0, "weights", "not negative, one at least above 0")

    @cached_property
    def probabilities(self) -> Floats:
        weights = np.asarray(self.weights, dtype=np.float64)
        return np.asarray(weights / weights.sum())

    @property
    def mean(self) -> float:
        return float(np.dot(self.values, self.probabilities))

    @cached_property
    def _edges(self) -> Floats:
        edges = np.cumsum(self.probabilities)
        edges[-1] = 1.0
        return edges

    def draw(self, rng: Generator, n: int) -> Ints:
        values = np.asarray(self.values, dtype=np.int64)
        return np.asarray(values[np.searchsorted(self._edges, rng.random(n), side="right")])

    def clipped(self, most: int) -> "Shares":
        """Without the values above `most`: what a truncated trace shows."""
        kept = [(v, w) for v, w in zip(self.values, self.weights, strict=True) if v <= most]
        return Shares(tuple(v for v, _ in kept), tuple(w for _, w in kept))

    def split_top(self, share: float, grip: float) -> "tuple[Shares, Shares]":
        """Two laws, (rest, top), whose mix with weight `share` on the top is this one.

        The top law takes a draw from the uppermost `share` of the mass with probability `grip`, else from all of it.
        """
        assert 0 < share < 1
        assert 0 <= grip <= 1
        p = self.probabilities
        above = np.append(np.cumsum(p[::-1])[::-1][1:], 0.0)  # mass strictly above each value
        upper = np.clip(share - above, 0.0, p) / share
        top = grip * upper + (1 - grip) * p
        rest = np.maximum(p - share * top, 0.0)
        return Shares(self.values, tuple(rest.tolist())), Shares(self.values, tuple(top.tolist()))
