"""Baselines without value averaging: optimistic hedge at every state, on a continuation that is never learnt, or on
that of the profile just played. Every step of their policy plays any iteration of the run.
"""

import numpy as np

from headrace.core.games.chains import Flat
from headrace.core.games.game import Game, sweep
from headrace.core.games.learnt import Learnt, closed, room, softmax


def learn_myopic(game: Game, iterations: int, eta: float) -> Learnt:
    """No value update: each state's players learn as if all states that follow were worth the same."""
    return _hedge(game, iterations, eta, share=0.0)


def learn_current(game: Game, iterations: int, eta: float) -> Learnt:
    """Values are those of the profile just played, taken as they are: the game under a state moves with every play."""
    return _hedge(game, iterations, eta, share=1.0)


def _hedge(game: Game, iterations: int, eta: float, share: float) -> Learnt:
    plays, values, barred = room(game, iterations), game.optimistic(), closed(game)
    total, guess = np.zeros_like(plays[0]), np.zeros_like(plays[0])
    for profile in plays:
        profile[:] = softmax(eta * (total + guess) + barred)
        guess = sweep(game, profile, values, share)
        total += guess
    return Learnt(plays, Flat(iterations))
