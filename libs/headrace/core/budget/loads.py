"""Classes of load and how they follow one another, estimated from a trace of each player's load, epoch by epoch.

A load is the work that comes in an epoch beside what the player could do in it at full speed: 1 is all that it can.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.core.errors import InvalidInput

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
CLASSES_MAX = 8
PSEUDO = 4.0  # [I] observations that the prior counts as, of each class


@dataclass(frozen=True, slots=True)
class Chain:
    """One player's load as a Markov chain over its classes, low to high."""

    edges: tuple[float, ...]  # between two classes; one fewer than classes
    loads: tuple[float, ...]  # the mean of each class
    next_p: tuple[tuple[float, ...], ...]  # [class][class]: which follows in the next epoch

    def __post_init__(self) -> None:
        count = len(self.loads)
        assert 1 <= count <= CLASSES_MAX
        assert len(self.edges) == count - 1
        assert len(self.next_p) == count
        assert all(len(row) == count and abs(sum(row) - 1.0) < 1e-6 for row in self.next_p)

    @property
    def classes(self) -> int:
        return len(self.loads)

    def of(self, load: Floats) -> Numbers:
        """The class that each load is in."""
        found: Numbers = np.searchsorted(np.array(self.edges), load, side="right").astype(np.int64)
        return found


def estimate(loads: Floats, classes: int) -> Chain:
    """loads: [epoch]. Classes have equally many epochs each, as far as loads differ.

    Estimator: transitions are the posterior means of rows under a Dirichlet prior that counts as PSEUDO observations
    spread as the classes are (each seen once more than it was): (n(c, c') + PSEUDO p(c')) / (n(c) + PSEUDO).
    """
    loads = np.asarray(loads, np.float64)
    if len(loads) < 2 or not np.isfinite(loads).all() or (loads < 0.0).any():
        raise InvalidInput("a load must be at least two epochs of finite numbers, 0 or above", field="loads")
    if not 1 <= classes <= CLASSES_MAX:
        raise InvalidInput(f"classes {classes}: must be from 1 to {CLASSES_MAX}", field="classes")
    edges = np.quantile(loads, np.arange(1, classes) / classes)
    at = np.searchsorted(edges, loads, side="right")
    seen = np.bincount(at, minlength=classes).astype(np.float64)
    bounds = np.concatenate([[loads.min()], edges, [loads.max()]])
    middle = (bounds[:-1] + bounds[1:]) / 2.0
    mean = np.where(seen > 0.0, np.bincount(at, loads, classes) / np.maximum(seen, 1.0), middle)
    counts = np.zeros((classes, classes))
    np.add.at(counts, (at[:-1], at[1:]), 1.0)
    return Chain(
        _told(edges), _told(mean), tuple(_told(row) for row in posterior(counts, (seen + 1.0) / (seen + 1.0).sum()))
    )


def posterior(counts: Floats, prior: Floats) -> Floats:
    """[class, class] rows of probabilities. prior: [class], or [class, class] for one of each row."""
    found: Floats = (counts + PSEUDO * prior) / (counts.sum(axis=1, keepdims=True) + PSEUDO)
    found /= found.sum(axis=1, keepdims=True)
    return found


def _told(values: Sequence[float] | Floats) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
