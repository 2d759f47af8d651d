"""Learning with smooth values: every iteration moves the values a little, by alpha_t = (H + 1) / (H + t), and weighs
past utilities as those values do. The regulariser is negative entropy.
"""

import numpy as np

from headrace.core.games.chains import Smooth
from headrace.core.games.game import Game, sweep
from headrace.core.games.learnt import Learnt, closed, room, softmax


def learn(game: Game, iterations: int, eta: float, *, prediction: float = 1.0) -> Learnt:
    """Optimistic FTRL with the smooth values of the L4DC 2024 paper's CE algorithm, here for CCE.

    Past utilities count relative to the coming one: sum_j (w_j / w_t) u_j = t / (H + 1) x their weighted mean.
    prediction: weight of the last utility as a guess of the next one; 1 is optimistic, 0 plain FTRL.
    """
    plays, values, barred = room(game, iterations), game.optimistic(), closed(game)
    mean, guess = np.zeros_like(plays[0]), np.zeros_like(plays[0])
    for done, profile in enumerate(plays):
        past = (done / (game.horizon + 1)) * mean
        profile[:] = softmax(eta * (past + prediction * guess) + barred)
        share = (game.horizon + 1) / (game.horizon + done + 1)
        guess = sweep(game, profile, values, share)
        mean += share * (guess - mean)
    return Learnt(plays, Smooth(iterations, game.horizon))
