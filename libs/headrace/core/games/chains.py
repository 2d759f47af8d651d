"""Which iteration of a learning run is played at each step of a game: the index that correlates the players.

A chain starts anew at step 0 and goes on from the index of the step before. Three kinds: by stages, smooth, flat.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from headrace.core.games.game import Floats


class Chain(Protocol):
    @property
    def iterations(self) -> int: ...

    def weights(self, step: int) -> Floats:
        """(iterations,): how probable each iteration is at a step, over all that may have come before."""
        ...

    def draw(self, step: int, before: int, share: float) -> int:
        """The index at a step, after `before` at the last one (at step 0: any), from a uniform share in [0, 1)."""
        ...


def stage_ends(iterations: int, horizon: int) -> tuple[int, ...]:
    """Ends of the stages that a run finishes: the first has `horizon` iterations, each further one (1 + 1/H) times as
    many as the one before, and at least one more.
    """
    ends, length = [], horizon
    end = length
    while end <= iterations:
        ends.append(end)
        length = max(length + 1, length + length // horizon)
        end += length
    return tuple(ends)


def cut_ends(iterations: int, horizon: int) -> tuple[int, ...]:
    """The same, and a last stage that ends with the run, however short: the reference tables were made so."""
    ends = stage_ends(iterations, horizon)
    return ends if ends and ends[-1] == iterations else (*ends, iterations)


@dataclass(frozen=True, slots=True)
class Stages:
    """Step 0 plays an iteration of the last stage, step 1 one of the stage before, and so on, each drawn evenly."""

    iterations: int
    horizon: int
    ends: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.ends) >= self.horizon, f"{self.iterations} iterations are fewer than {self.horizon} stages need"
        assert self.ends[-1] <= self.iterations

    def span(self, step: int) -> tuple[int, int]:
        stage = len(self.ends) - 1 - step
        return (self.ends[stage - 1] if stage else 0), self.ends[stage]

    def weights(self, step: int) -> Floats:
        start, end = self.span(step)
        found = np.zeros(self.iterations)
        found[start:end] = 1.0 / (end - start)
        return found

    def draw(self, step: int, before: int, share: float) -> int:
        start, end = self.span(step)
        return start + int(share * (end - start))


def smooth_weights(iterations: int, horizon: int) -> Floats:
    """w_j = C(H + j - 1, H), j = 1..T: value updates with alpha_t = (H + 1) / (H + t) leave iteration j, after t of
    them, with the weight alpha_t^j = w_j / (w_1 + ... + w_t).
    """
    later = np.arange(1.0, iterations)
    found = np.ones(iterations)
    found[1:] = np.cumprod(1.0 + horizon / later)
    assert np.isfinite(found[-1] * iterations), f"{iterations} iterations of horizon {horizon} overflow"
    return found


@dataclass(frozen=True, slots=True)
class Smooth:
    """After index t comes j <= t with probability alpha_t^j; before step 0 stands the last iteration."""

    iterations: int
    horizon: int

    def weights(self, step: int) -> Floats:
        single = smooth_weights(self.iterations, self.horizon)
        total = np.cumsum(single)
        found: Floats = single / total[-1]
        for _ in range(step):
            later: Floats = np.cumsum((found / total)[::-1])[::-1]
            found = single * later
        return found

    def draw(self, step: int, before: int, share: float) -> int:
        last = before if step else self.iterations - 1
        total = np.cumsum(smooth_weights(last + 1, self.horizon))
        return min(last, int(np.searchsorted(total, share * total[-1], side="right")))


@dataclass(frozen=True, slots=True)
class Flat:
    """Every step plays any iteration of the run, drawn evenly."""

    iterations: int

    def weights(self, step: int) -> Floats:
        return np.full(self.iterations, 1.0 / self.iterations)

    def draw(self, step: int, before: int, share: float) -> int:
        return int(share * self.iterations)
