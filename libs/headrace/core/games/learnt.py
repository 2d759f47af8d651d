"""What a learning run leaves behind, and what all learners are: a function from a game to that."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from headrace.core.games.chains import Chain
from headrace.core.games.game import Floats, Game, normalised

PLAYS_MOST = 2**27  # numbers of one run: 1 GiB


@dataclass(frozen=True, slots=True, eq=False)
class Learnt:
    """plays (T, N, H, S, width): each iteration's mixed actions. chain: which of them the certified policy plays."""

    plays: Floats
    chain: Chain


class Learner(Protocol):
    """`eta`: step size on raw utilities (in [0, H]). The run does not depend on how many iterations follow: the first
    t plays of a longer run are the plays of a run of t.
    """

    def __call__(self, game: Game, iterations: int, eta: float) -> Learnt: ...


def room(game: Game, iterations: int) -> Floats:
    """For the plays of a run, (T, N, H, S, width)."""
    shape = (iterations, game.players, game.horizon, game.states, game.width)
    assert np.prod(shape, dtype=float) <= PLAYS_MOST, f"plays of shape {shape}, at most {PLAYS_MOST} numbers"
    return np.zeros(shape)


def closed(game: Game) -> Floats | float:
    """To be added to scores (N, H, S, width): minus infinity for actions that a player does not have."""
    own = game.own()
    return 0.0 if own.all() else np.where(own, 0.0, -np.inf)[:, None, None]


def softmax(scores: Floats) -> Floats:
    """Over the last axis: what negative entropy makes of scores."""
    return normalised(np.exp(scores - scores.max(-1, keepdims=True)))
