"""Exactly how much a player would win by leaving a correlated policy, by dynamic programming: for coarse correlated
equilibria (a player leaves before it sees its action) and correlated ones (it swaps the actions that it is told).

A policy whose steps draw anew is, for its gap, one joint distribution of actions a step and state. Smooth chains go on
from the index of the step before: whoever leaves is let see past indices, so theirs is an upper bound.
"""

from collections.abc import Callable

import numpy as np

from headrace.core.games.chains import Smooth, smooth_weights
from headrace.core.games.game import Floats, Game, against_others
from headrace.core.games.learnt import Learnt

_AT_ONCE = 2**21  # numbers of a block of iterations: 16 MiB

# From the worth (..., A, A) of playing the column's action where the row's was drawn, weighted by how often it is:
# the worth of the best way to leave.
Leaving = Callable[[Floats], Floats]


def coarse(worth: Floats) -> Floats:
    found: Floats = worth.sum(-2).max(-1)
    return found


def swapping(worth: Floats) -> Floats:
    found: Floats = worth.max(-1).sum(-1)
    return found


def cce_gap(game: Game, learnt: Learnt) -> float:
    """Of the certified policy, in rewards of a whole game (at most H); 0 where everybody would lose by leaving."""
    return max(0.0, float(gains(game, learnt, coarse).max()))


def ce_gap(game: Game, learnt: Learnt) -> float:
    """The same for swaps, of which doing as told is one: 0 is the least there is."""
    return max(0.0, float(gains(game, learnt, swapping).max()))


def gains(game: Game, learnt: Learnt, leaving: Leaving) -> Floats:
    """(N, S): what each player wins by leaving in its best way, by the state that the game starts in; below 0 where it
    would lose.
    """
    if isinstance(learnt.chain, Smooth):
        last: Floats = smooth_gains(game, learnt.plays, leaving)[-1]
        return last
    joints = [joint(game, learnt.plays[:, :, step], learnt.chain.weights(step)) for step in range(game.horizon)]
    return redraw_gains(game, joints, leaving)


def cce_gap_of_table(game: Game, table: Floats) -> float:
    """Of the policy that draws one of M profiles evenly at every step: table (H, M, N, S, width)."""
    return max(0.0, float(best_response_gain(game, table).max()))


def best_response_gain(game: Game, table: Floats) -> Floats:
    """(N,): for each player, from the state where it would win most; below 0 if it would lose by leaving."""
    even = np.full(table.shape[1], 1.0 / table.shape[1])
    joints = [joint(game, profiles, even) for profiles in table]
    found: Floats = redraw_gains(game, joints, coarse).max(-1)
    return found


def informed_gain(game: Game, table: Floats) -> Floats:
    """(N,): what a player would win that works out the shared index and answers each of the M profiles by itself."""
    best, stay = np.zeros((2, game.players, game.states))
    for step in range(game.horizon - 1, -1, -1):
        mixed = np.moveaxis(table[step], 1, 0)
        for player in range(game.players):
            own = mixed[player, ..., : game.actions[player]]
            best[player] = _against(game, step, player, best[player], mixed).max(-1).mean(0)
            stay[player] = (_against(game, step, player, stay[player], mixed) * own).sum(-1).mean(0)
    found: Floats = (best - stay).max(-1)
    return found


def joint(game: Game, profiles: Floats, weights: Floats) -> Floats:
    """profiles (M, N, S, width) and how probable each is (M,) -> (S, A_1, ..., A_N): actions together."""
    kept = np.flatnonzero(weights)
    found = np.zeros((game.states, *game.actions))
    block = max(1, _AT_ONCE // found.size)
    for start in range(0, len(kept), block):
        chosen = kept[start : start + block]
        found += _joint(game, profiles[chosen], weights[chosen])
    return found


def _joint(game: Game, profiles: Floats, weights: Floats) -> Floats:
    each = [profiles[:, player, :, :count] for player, count in enumerate(game.actions)]
    before = np.broadcast_to(weights[:, None, None], (*each[0].shape[:2], 1))
    for mixed in each[:-1]:
        before = (before[..., None] * mixed[:, :, None, :]).reshape(*mixed.shape[:2], -1)
    together: Floats = np.moveaxis(before, 0, -1) @ np.swapaxes(each[-1], 0, 1)
    return together.reshape(game.states, *game.actions)


def redraw_gains(game: Game, joints: list[Floats], leaving: Leaving) -> Floats:
    """joints: per step (S, A_1, ..., A_N). (N, S)."""
    best, stay = np.zeros((game.players, game.states)), np.zeros((game.players, game.states))
    for step in range(game.horizon - 1, -1, -1):
        if_left, if_stayed, drawn = game.ahead(step, best), game.ahead(step, stay), joints[step]
        for player in range(game.players):
            told = _first(drawn, player)
            best[player] = leaving(told @ np.swapaxes(_first(if_left[player], player), -1, -2))
            stay[player] = np.einsum("sax,sax->s", told, _first(if_stayed[player], player))
    return best - stay


def _first(cells: Floats, player: int) -> Floats:
    """(S, A_1, ..., A_N) -> (S, A_player, all that the others may do)."""
    moved = np.moveaxis(cells, 1 + player, 1)
    return moved.reshape(*moved.shape[:2], -1)


def smooth_gains(game: Game, plays: Floats, leaving: Leaving) -> Floats:
    """(T, N, S): of smooth learning stopped after each of its iterations, in one pass.

    alpha_t^j = w_j / sum_{k <= t} w_k, so a weighted mean up to every t is a ratio of running sums.
    """
    weights = smooth_weights(len(plays), game.horizon)
    shape = (len(plays), game.players, game.states)
    best, stay = np.zeros(shape), np.zeros(shape)
    for step in range(game.horizon - 1, -1, -1):
        mixed = np.moveaxis(plays[:, :, step], 1, 0)
        for player in range(game.players):
            worth = _against(game, step, player, best[:, player], mixed)
            if leaving is coarse:
                pairs = worth[:, :, None, :]
            else:
                pairs = mixed[player, ..., : game.actions[player], None] * worth[:, :, None, :]
            best[:, player] = leaving(_running(pairs, weights))
            earned = _against(game, step, player, stay[:, player], mixed)
            played = np.einsum("tsa,tsa->ts", earned, mixed[player, ..., : game.actions[player]])
            stay[:, player] = _running(played, weights)
    return best - stay


def _against(game: Game, step: int, player: int, following: Floats, mixed: Floats) -> Floats:
    """(T, S, A_player): each action's worth against the others' iteration t, if what follows is worth (T, S) or, after
    every iteration the same, (S,).
    """
    following = np.broadcast_to(following, (mixed.shape[1], game.states))
    rewards = game.rewards[player, step]
    ahead = game.transitions[step].reshape(-1, game.states).T
    found = np.empty((len(following), game.states, game.actions[player]))
    block = max(1, _AT_ONCE // rewards.size)
    for start in range(0, len(following), block):
        span = slice(start, start + block)
        payoffs = (following[span] @ ahead).reshape(-1, *rewards.shape) + rewards
        found[span] = against_others(payoffs, mixed[:, span], player)
    return found


def _running(values: Floats, weights: Floats) -> Floats:
    """Weighted means of values (T, ...) up to each t."""
    wide = weights.reshape(-1, *(1,) * (values.ndim - 1))
    found: Floats = np.cumsum(values * wide, axis=0) / np.cumsum(wide, axis=0)
    return found
