"""Learning runs with their gap after so many iterations, over seeds, and how long they take."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.core.games import LEARNERS, Game, cce_gap, ce_gap
from headrace.core.games.chains import Flat, Smooth, Stages, cut_ends
from headrace.core.games.game import Floats
from headrace.core.games.gaps import Leaving, coarse, smooth_gains
from headrace.core.games.learnt import Learnt
from headrace.report.compare import Estimate, estimate

Make = Callable[[int], Game]  # of a seed
_LEAST = 1e-12  # of a gap, for its logarithm


@dataclass(frozen=True, slots=True)
class Gaps:
    """Of one learner on one game, by seed: rows of gaps after the iterations `at`."""

    at: tuple[int, ...]
    rows: Floats  # (seeds, len(at))

    def mean(self, seeds: int = 0) -> dict[int, float]:
        """Over the first so many seeds; 0: all."""
        rows = self.rows[:seeds] if seeds else self.rows
        return dict(zip(self.at, rows.mean(0).tolist(), strict=True))

    def estimates(self) -> dict[int, Estimate]:
        return {at: estimate(column.tolist()) for at, column in zip(self.at, self.rows.T, strict=True)}

    def slope(self, seeds: int = 0) -> float:
        """Least squares of the logarithm of the mean gap against that of the iterations."""
        return slope(self.mean(seeds))

    def slopes(self) -> Estimate:
        return estimate([slope(dict(zip(self.at, row.tolist(), strict=True))) for row in self.rows])


def slope(gaps: dict[int, float]) -> float:
    return float(np.polyfit(np.log(list(gaps)), np.log(np.maximum(list(gaps.values()), _LEAST)), 1)[0])


def ends_slope(gaps: dict[int, float], first: int, last: int) -> float:
    """Between two ends, as the reference tables have it."""
    return float(np.log(max(gaps[last], _LEAST) / max(gaps[first], _LEAST)) / np.log(last / first))


def stopped(learnt: Learnt, iterations: int) -> Learnt:
    """The run, had it ended there; its last stage, if it has stages, cut off there."""
    plays, chain = learnt.plays[:iterations], learnt.chain
    match chain:
        case Smooth(_, horizon):
            return Learnt(plays, Smooth(iterations, horizon))
        case Stages(_, horizon, _):
            return Learnt(plays, Stages(iterations, horizon, cut_ends(iterations, horizon)))
        case _:
            return Learnt(plays, Flat(iterations))


def curve(game: Game, learnt: Learnt, at: Sequence[int], leaving: Leaving = coarse) -> list[float]:
    """The gap after each of `at` iterations."""
    if isinstance(learnt.chain, Smooth):
        found = np.maximum(smooth_gains(game, learnt.plays, leaving).max((1, 2)), 0.0)
        return [float(found[iterations - 1]) for iterations in at]
    gap = cce_gap if leaving is coarse else ce_gap
    return [gap(game, stopped(learnt, iterations)) for iterations in at]


def measured(
    make: Make, name: str, eta: float, at: Sequence[int], seeds: Sequence[int], leaving: Leaving = coarse
) -> Gaps:
    rows = []
    for seed in seeds:
        game = make(seed)
        rows.append(curve(game, LEARNERS[name](game, at[-1], eta), at, leaving))
    return Gaps(tuple(at), np.array(rows))


@dataclass(frozen=True, slots=True)
class Took:
    clock_s: float  # what others do on the machine counts
    processor_s: float  # of this process, which has one thread


def timed(make: Make, name: str, eta: float, at: Sequence[int], seeds: Sequence[int], times: int) -> Took:
    """For learning and for the gaps at all of `at`: each seed's least of so many times, all seeds together."""
    each = np.array([[_once(make, name, eta, at, seed) for _ in range(times)] for seed in seeds])
    clock_s, processor_s = each.min(1).sum(0).tolist()
    return Took(clock_s, processor_s)


def _once(make: Make, name: str, eta: float, at: Sequence[int], seed: int) -> tuple[float, float]:
    begun = time.perf_counter(), time.process_time()
    measured(make, name, eta, at, (seed,))
    return time.perf_counter() - begun[0], time.process_time() - begun[1]
