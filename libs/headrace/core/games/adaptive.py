"""Learning at a pace that slows down where a player's regret is very negative, with smooth values.

Known: abstracts only. Soleymani, Piliouras and Farina (2503.24340): optimistic multiplicative weights whose learning
rate is adaptive and not monotone, O(N log^2 A log T) regret in normal form. Yorulmaz and Basar (L4DC 2026, 2511.02157):
the same idea in Markov games, CCE at O(log T / T), weighted utilities, policy ~ exp(lambda_t R).
Ours: R is the weighted sum of regret vectors (utility minus what was earned) with the last one as the guess; lambda_t
in (0, 1] maximises (alpha - 1) log lambda + log sum_a exp(lambda R_a), recalled from the first paper's lifted view and
not checked against it; alpha = 2 + log^2 A; smooth values.
"""

import math

import numpy as np

from headrace.core.games.chains import Smooth
from headrace.core.games.game import Floats, Game, sweep
from headrace.core.games.learnt import Learnt, closed, room, softmax

_BISECTIONS = 30


def learn(game: Game, iterations: int, eta: float) -> Learnt:
    plays, values, barred = room(game, iterations), game.optimistic(), closed(game)
    mean, guess = np.zeros_like(plays[0]), np.zeros_like(plays[0])
    caution = 1.0 + math.log(game.width) ** 2
    for done, profile in enumerate(plays):
        regrets = eta * ((done / (game.horizon + 1)) * mean + guess)
        profile[:] = softmax(pace(regrets, barred, caution) * regrets + barred)
        share = (game.horizon + 1) / (game.horizon + done + 1)
        found = sweep(game, profile, values, share)
        guess = found - np.einsum("nhsa,nhsa->nhs", found, profile)[..., None]
        mean += share * (guess - mean)
    return Learnt(plays, Smooth(iterations, game.horizon))


def pace(regrets: Floats, barred: Floats | float, caution: float) -> Floats:
    """lambda in (0, 1] for regrets (..., A), (..., 1): 1 unless the softmax's mean regret is below -caution; else where
    lambda x mean regret = -caution.
    """

    def slack(lam: Floats) -> Floats:
        mean: Floats = (softmax(lam * regrets + barred) * regrets).sum(-1, keepdims=True)
        return caution + lam * mean

    high = np.ones((*regrets.shape[:-1], 1))
    slow = slack(high) < 0.0
    if not slow.any():
        return high
    low = np.zeros_like(high)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        under = slack(middle) < 0.0
        low, high = np.where(under, low, middle), np.where(under, middle, high)
    return np.where(slow, low, 1.0)
