"""Finite-horizon general-sum Markov games as tables, and the one contraction that learning in them consists of:
what each own action is worth against the others' mixed actions, for all states (and steps, or iterations) at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CELLS_MOST = 2**26  # of one table: 512 MiB; it is exponential in the number of players
_SUM_ERROR = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Game:
    """N players, horizon H, S states, A_i actions of player i (numbers may differ).

    rewards (N, H, S, A_1, ..., A_N), each in [0, 1]: so values lie in [0, H].
    transitions (H, S, A_1, ..., A_N, S): the last axis is a distribution over next states.

    Policies and utilities of all players share arrays whose last axis is `width` = max A_i: entries of actions that a
    player does not have are 0.
    """

    rewards: Floats
    transitions: Floats

    def __post_init__(self) -> None:
        players, horizon, states = self.rewards.shape[:3]
        actions = self.rewards.shape[3:]
        assert len(actions) == players >= 1, f"{players} players, but {len(actions)} axes of actions"
        assert self.transitions.shape == (horizon, states, *actions, states), self.transitions.shape
        assert self.rewards.size <= CELLS_MOST, f"{self.rewards.size} cells of rewards, at most {CELLS_MOST}"
        assert self.transitions.size <= CELLS_MOST, f"{self.transitions.size} cells, at most {CELLS_MOST}"
        assert self.rewards.min() >= 0.0, "a negative reward"
        assert self.rewards.max() <= 1.0, "a reward above 1"
        assert self.transitions.min() >= 0.0, "a negative probability"
        assert np.abs(self.transitions.sum(-1) - 1.0).max() < _SUM_ERROR, "next states are no distribution"

    @property
    def players(self) -> int:
        return len(self.rewards)

    @property
    def horizon(self) -> int:
        return int(self.rewards.shape[1])

    @property
    def states(self) -> int:
        return int(self.rewards.shape[2])

    @property
    def actions(self) -> tuple[int, ...]:
        return self.rewards.shape[3:]

    @property
    def width(self) -> int:
        return max(self.actions)

    def own(self) -> NDArray[np.bool_]:
        """(N, width): which actions a player has."""
        return np.arange(self.width) < np.array(self.actions)[:, None]

    def uniform(self) -> Floats:
        """(N, H, S, width): every player mixes its actions evenly."""
        each = self.own() / np.array(self.actions)[:, None]
        return np.broadcast_to(each[:, None, None], (self.players, self.horizon, self.states, self.width)).copy()

    def optimistic(self) -> Floats:
        """(N, H + 1, S): the most that is left to win from each step on, H - h."""
        left = np.arange(self.horizon, -1, -1, dtype=float)
        return np.broadcast_to(left[None, :, None], (self.players, self.horizon + 1, self.states)).copy()

    def ahead(self, step: int, values: Floats) -> Floats:
        """Rewards of a step and what follows: values (N, S) of the next step -> (N, S, A_1, ..., A_N)."""
        following = values @ self.transitions[step].reshape(-1, self.states).T
        found: Floats = self.rewards[:, step] + following.reshape(self.rewards[:, step].shape)
        return found


def normalised(weights: Floats) -> Floats:
    """To a sum of one along the last axis."""
    found: Floats = weights / weights.sum(-1, keepdims=True)
    return found


def against_others(payoffs: Floats, mixed: Sequence[Floats] | Floats, player: int) -> Floats:
    """What each action of `player` is worth: payoffs (..., A_1, ..., A_N), mixed[j] (..., >= A_j) -> (..., A_player).

    The sum over the others' actions of their product of probabilities times the payoff. One batched matrix product for
    each other player, from the outer axes inwards, so no axis is moved; the same as an einsum over all of them.
    """
    actions = payoffs.shape[payoffs.ndim - len(mixed) :]
    batch = payoffs.shape[: payoffs.ndim - len(mixed)]
    left = payoffs
    for other in range(len(mixed) - 1, player, -1):
        weights = mixed[other][..., : actions[other], None]
        left = (left.reshape(*batch, -1, actions[other]) @ weights)[..., 0]
    for other in range(player):
        weights = mixed[other][..., None, : actions[other]]
        left = (weights @ left.reshape(*batch, actions[other], -1))[..., 0, :]
    return left.reshape(*batch, actions[player])


def utilities(payoffs: Floats, mixed: Floats) -> Floats:
    """against_others() for every player: payoffs (N, ..., A_1, ..., A_N), mixed (N, ..., width) -> (N, ..., width)."""
    found = np.zeros_like(mixed)
    for player in range(len(mixed)):
        own = against_others(payoffs[player], mixed, player)
        found[player, ..., : own.shape[-1]] = own
    return found


def sweep(game: Game, profile: Floats, values: Floats, share: float) -> Floats:
    """Utilities (N, H, S, width) of a profile of that shape, from the last step to the first; on the way `values`
    (N, H + 1, S) move by `share` towards what the profile earns, so a step sees the next one's values of this sweep.
    """
    found = np.empty_like(profile)
    for step in range(game.horizon - 1, -1, -1):
        mixed = profile[:, step]
        found[:, step] = utilities(game.ahead(step, values[:, step + 1]), mixed)
        values[:, step] += share * (np.einsum("nsa,nsa->ns", found[:, step], mixed) - values[:, step])
    return found
