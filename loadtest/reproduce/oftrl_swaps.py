"""Correlated equilibria: the swap gap of Blum-Mansour with a log barrier on Shapley's game and on Markov games."""

from collections.abc import Sequence

import numpy as np

from headrace.core.games import LEARNERS, Learnt, ce_gap
from headrace.core.games.blum_mansour import learn_from, proven_eta
from headrace.core.games.chains import Flat
from headrace.core.games.gaps import coarse, swapping
from loadtest.reproduce.oftrl_games import shapley_game, shapley_start
from loadtest.reproduce.oftrl_runs import Gaps, curve

PROVEN = proven_eta(shapley_game())
ETAS = (PROVEN, 0.1, 1.0, 4.0)
NOISE = 0.1
ITERATIONS = 3200  # of the reference


def symmetric(at: Sequence[int]) -> dict[str, dict[int, float]]:
    """Shapley's game from a play that is no equilibrium, by step size; the proven one also with plain averages."""
    game, found = shapley_game(), {}
    for eta in ETAS:
        learnt = learn_from(game, at[-1], eta, shapley_start())
        found[_named(eta)] = dict(zip(at, curve(game, learnt, at, swapping), strict=True))
        if eta == PROVEN:
            plain = [ce_gap(game, Learnt(learnt.plays[:t], Flat(t))) for t in at]
            found[f"{_named(eta)}, plain averages"] = dict(zip(at, plain, strict=True))
    return found


def moved(at: Sequence[int], seeds: Sequence[int]) -> dict[str, tuple[Gaps, Gaps]]:
    """Entries moved by up to 0.1, so that even mixtures are no equilibrium: swap gaps and coarse gaps."""
    found = {}
    for eta in ETAS:
        found[_named(eta)] = _both("bm_log_barrier", eta, at, seeds)
    found["smooth OFTRL 0.5"] = _both("smooth_oftrl", 0.5, at, seeds)
    return found


def _both(learner: str, eta: float, at: Sequence[int], seeds: Sequence[int]) -> tuple[Gaps, Gaps]:
    rows = []
    for seed in seeds:
        game = shapley_game(seed, noise=NOISE)
        learnt = LEARNERS[learner](game, at[-1], eta)
        rows.append([curve(game, learnt, at, leaving) for leaving in (swapping, coarse)])
    each = np.array(rows)
    return Gaps(tuple(at), each[:, 0]), Gaps(tuple(at), each[:, 1])


def _named(eta: float) -> str:
    return f"proven {eta:.4f}" if eta == PROVEN else f"{eta:g}"
