"""How learning scales: one size of the random game at a time, seconds an iteration and the gap after a fixed number."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.core.games import LEARNERS, cce_gap
from headrace.report.compare import Estimate, estimate
from loadtest.reproduce.oftrl_games import random_game

ETAS = {"smooth_oftrl": 0.5, "stage_oftrl": 0.5, "bm_log_barrier": 1.0}
SIZES = {
    "states": (2, 4, 8, 16, 32, 64),
    "actions": (2, 4, 8, 16, 32),
    "players": (2, 3, 4, 5, 6),
    "horizon": (1, 2, 4, 8, 16),
}
QUICK_SIZES = {"states": (2, 4, 16), "actions": (2, 4, 16), "players": (2, 3, 4), "horizon": (1, 2, 4)}


@dataclass(frozen=True, slots=True)
class Point:
    size: int
    iteration_s: float  # of learning alone and of the processor, the fastest seed's
    gap: Estimate  # as a share of the horizon


def scaling(
    sizes: dict[str, tuple[int, ...]], iterations: int, seeds: Sequence[int]
) -> dict[str, dict[str, list[Point]]]:
    """By size and learner."""
    return {
        name: {learner: [_point(learner, name, size, iterations, seeds) for size in of] for learner in ETAS}
        for name, of in sizes.items()
    }


def _point(learner: str, name: str, size: int, iterations: int, seeds: Sequence[int]) -> Point:
    took, gaps = [], []
    for seed in seeds:
        game = random_game(seed, **{name: size})
        begun = time.process_time()
        learnt = LEARNERS[learner](game, iterations, ETAS[learner])
        took.append((time.process_time() - begun) / iterations)
        gaps.append(cce_gap(game, learnt) / game.horizon)
    return Point(size, min(took), estimate(gaps))
