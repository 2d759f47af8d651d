"""Stage-based learning of a coarse correlated equilibrium: optimistic follow-the-regularised-leader with negative
entropy, begun anew in every stage, with values that stay as they are until a stage ends.

After "O~(1/T) convergence to (coarse) correlated equilibria in full-information general-sum Markov games" (L4DC 2024),
whose CCE algorithm this is in outline; the stages' lengths and the step size are ours (docs/games.md).
"""

import numpy as np

from headrace.core.games.chains import Stages, cut_ends, stage_ends
from headrace.core.games.game import Floats, Game, utilities
from headrace.core.games.learnt import Learnt, closed, room, softmax


def learn(game: Game, iterations: int, eta: float, *, prediction: float = 1.0) -> Learnt:
    """prediction: weight of the last utility as a guess of the next one; 1 is optimistic, 0 plain FTRL."""
    plays, values, start = room(game, iterations), game.optimistic(), 0
    for end in cut_ends(iterations, game.horizon):
        earned = _stage(game, values, plays[start:end], eta, prediction)
        values[:, : game.horizon] = earned
        start = end
    return Learnt(plays, Stages(iterations, game.horizon, stage_ends(iterations, game.horizon)))


def _stage(game: Game, values: Floats, plays: Floats, eta: float, prediction: float) -> Floats:
    """Fills in the stage's plays; what they earn on average, (N, H, S)."""
    payoffs = np.stack([game.ahead(step, values[:, step + 1]) for step in range(game.horizon)], axis=1)
    total, guess = np.zeros_like(plays[0]), np.zeros_like(plays[0])
    earned, barred = np.zeros(total.shape[:-1]), closed(game)
    for profile in plays:
        profile[:] = softmax(eta * (total + prediction * guess) + barred)
        guess = utilities(payoffs, profile)
        total += guess
        earned += np.einsum("nhsa,nhsa->nhs", guess, profile)
    return earned / len(plays)
