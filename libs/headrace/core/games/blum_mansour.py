"""Learning of a correlated equilibrium: one log-barrier OFTRL for each own action (the reduction of Blum and Mansour),
with smooth values.

Per own action a: row x_a maximises eta <x, past_a + guess_a> + sum_r log x_r over the simplex; the player mixes by the
stationary distribution of the matrix of its rows, and row a is told the utilities times the probability of a.
Normal form: Anagnostides et al. 2022 (algorithm 1; step size 1 / (128 (N - 1) sqrt A), theorem 4.4); smooth values for
Markov games as in the L4DC 2024 paper's CE algorithm.
"""

import math

import numpy as np

from headrace.core.games.chains import Smooth
from headrace.core.games.game import Floats, Game, normalised, sweep
from headrace.core.games.learnt import Learnt, closed, room

_NEWTON_MOST = 60  # it takes about five
_SUM_ERROR = 1e-12


def proven_eta(game: Game) -> float:
    """The step size proven for normal-form games. It moves slowly; what larger ones do: docs/reproduce/oftrl.md."""
    return 1.0 / (128 * max(1, game.players - 1) * math.sqrt(game.width))


def learn(game: Game, iterations: int, eta: float) -> Learnt:
    return learn_from(game, iterations, eta, game.uniform())


def learn_from(game: Game, iterations: int, eta: float, first: Floats) -> Learnt:
    """first (N, H, S, width): the profile of the first iteration. From even mixtures a symmetric game never moves."""
    plays, values, barred = room(game, iterations), game.optimistic(), closed(game)
    rows = (*plays.shape[1:], game.width)
    mean, guess = np.zeros(rows), np.zeros(rows)
    barred_rows = barred if isinstance(barred, float) else barred[..., None, :]
    for done, profile in enumerate(plays):
        past = (done / (game.horizon + 1)) * mean
        profile[:] = stationary(log_barrier(eta * (past + guess) + barred_rows)) if done else first
        share = (game.horizon + 1) / (game.horizon + done + 1)
        guess = profile[..., :, None] * sweep(game, profile, values, share)[..., None, :]
        mean += share * (guess - mean)
    return Learnt(plays, Smooth(iterations, game.horizon))


def log_barrier(scores: Floats) -> Floats:
    """argmax over x in the simplex of <x, scores> + sum log x, along the last axis: x_r = 1 / (lam - score_r).

    A score of minus infinity gets 0. lam solves sum x = 1 and lies in (max, max + A]. Newton's method on 1 / sum x,
    which rises with lam and is concave: from max + 1, where the sum is at least 1, it comes from below and never
    overshoots.
    """
    below = scores.max(-1, keepdims=True) - scores
    lam = np.ones((*scores.shape[:-1], 1))
    for _ in range(_NEWTON_MOST):
        found = 1.0 / (lam + below)
        total = found.sum(-1, keepdims=True)
        if np.abs(total - 1.0).max() < _SUM_ERROR:
            break
        lam += (total - 1.0) * total / np.square(found).sum(-1, keepdims=True)
    return normalised(found)


def stationary(chains: Floats) -> Floats:
    """The distribution that each chain (..., A, A) leaves as it is, (..., A): of x = Q'x and sum x = 1 at once.

    Rows of positive entries have one; columns of actions that a player does not have are 0, and get 0.
    """
    width = chains.shape[-1]
    system = np.eye(width) - np.swapaxes(chains, -1, -2) + 1.0
    found = np.linalg.solve(system, np.ones((*chains.shape[:-1], 1)))[..., 0]
    return normalised(np.where(chains.max(-2) > 0.0, np.clip(found, 0.0, None), 0.0))
