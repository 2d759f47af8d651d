"""A budget game as tables: rewards of every joint choice in every state, and which state follows.

The tables grow as levels ^ players: eight players with five levels would need more memory than a server has, so their
size is bounded.
"""

import numpy as np

from headrace.core.budget.facts import Facts, Floats, scaled
from headrace.core.errors import InvalidInput
from headrace.core.games.game import CELLS_MOST, Game


def cells(facts: Facts) -> int:
    """Numbers of the larger of a game's two tables, rewards and transitions."""
    joint = int(len(facts.levels) ** len(facts.players))
    return facts.horizon * facts.states * joint * max(len(facts.players), facts.states)


def game(facts: Facts) -> Game:
    """Raises InvalidInput: a table would have more than CELLS_MOST numbers."""
    needed = cells(facts)
    if needed > CELLS_MOST:
        raise InvalidInput(
            f"a game of {len(facts.players)} players, {len(facts.levels)} levels and {facts.states} states needs a "
            f"table of {needed:,} numbers, {CELLS_MOST:,} are allowed: it grows as levels ^ players",
            field="players",
        )
    rewards, following = tables(facts)
    steps = facts.horizon
    return Game(
        np.broadcast_to(rewards[:, None], (rewards.shape[0], steps, *rewards.shape[1:])),
        np.broadcast_to(following[None], (steps, *following.shape)),
    )


def tables(facts: Facts) -> tuple[Floats, Floats]:
    """Rewards (N, S, A_1..A_N) in [0, 1] and transitions (S, A_1..A_N, S)."""
    done = done_shares(facts)
    whole = together(facts, done)
    n = len(facts.players)
    rewards = np.empty((n, *whole.shape))
    for player in range(n):
        own = (1.0 - facts.kappa) * done[player] + facts.kappa * whole
        rewards[player] = (own - facts.price * _asked(facts)[..., player] + facts.price) / (1.0 + facts.price)
    return np.clip(rewards, 0.0, 1.0), _following(facts, done)


def reward_of(facts: Facts, mapped: Floats) -> Floats:
    """A difference of rewards in [0, 1] in the players' own terms: shares of work done well."""
    return mapped * (1.0 + facts.price)


def _asked(facts: Facts) -> Floats:
    """(A_1..A_N, N) levels of every joint choice."""
    levels = np.array(facts.levels, dtype=np.float64)
    return np.stack(np.meshgrid(*[levels] * len(facts.players), indexing="ij"), axis=-1)


def _classes(facts: Facts) -> np.ndarray:
    """(S, 1 + N): classes of headroom and loads."""
    return np.stack(np.unravel_index(np.arange(facts.states), facts.shape), axis=-1)


def given_watts(facts: Facts) -> Floats:
    """(headroom, A_1..A_N, N): what each player gets beside its own watts at full speed."""
    asked = _asked(facts) * facts.weights
    return np.stack([scaled(asked, limit) for limit in facts.headroom]) / facts.weights


def done_shares(facts: Facts) -> Floats:
    """(N, S, A_1..A_N): of each player's work."""
    given, classes = given_watts(facts), _classes(facts)
    found = []
    for at, player in enumerate(facts.players):
        loads = np.array(player.chain.loads)[:, None, *[None] * len(facts.players)]
        by_class = player.utility.of(loads, given[None, ..., at])  # (class, headroom, A_1..A_N)
        found.append(by_class[classes[:, 1 + at], classes[:, 0]])
    return np.stack(found)


def together(facts: Facts, done: Floats) -> Floats:
    """(S, A_1..A_N): of the work of all. Tenants' count by their loads."""
    if facts.together == "least":
        found: Floats = done.min(axis=0)
        return found
    classes = _classes(facts)
    loads = np.stack(
        [np.array(player.chain.loads)[classes[:, 1 + at]] * player.weight for at, player in enumerate(facts.players)]
    )
    share = loads / np.maximum(loads.sum(axis=0), 1e-12)
    summed: Floats = np.einsum("ns,ns...->s...", share, done)
    return summed


def _following(facts: Facts, done: Floats) -> Floats:
    """(S, A_1..A_N, S). Loads are independent given what each leaves undone; headroom follows nobody."""
    classes, joint = _classes(facts), done.shape[2:]
    found = np.array(facts.headroom_next_p)[classes[:, 0]].reshape(facts.states, *[1] * len(joint), -1)
    for at in range(len(facts.players)):
        own = _next_class(facts, at, classes[:, 1 + at], done[at])
        found = found[..., :, None] * own[..., None, :]
        found = found.reshape(*found.shape[:-2], -1)
    whole: Floats = np.broadcast_to(found, (facts.states, *joint, facts.states))
    normed: Floats = whole / whole.sum(axis=-1, keepdims=True)
    return normed


def _next_class(facts: Facts, at: int, classes: np.ndarray, done: Floats) -> Floats:
    """(S, A_1..A_N, class): the fresh load's class, raised by what was not done."""
    chain = facts.players[at].chain
    rows = np.array(chain.next_p)[classes].reshape(len(classes), *[1] * (done.ndim - 1), chain.classes)
    if not facts.carry:
        return np.broadcast_to(rows, (*done.shape, chain.classes))
    loads = np.array(chain.loads)
    left = loads[classes].reshape(-1, *[1] * (done.ndim - 1)) * (1.0 - done)
    found = np.zeros((*done.shape, chain.classes))
    for fresh in range(chain.classes):
        raised = np.maximum(chain.of(loads[fresh] + left), fresh)
        found += rows[..., fresh, None] * (raised[..., None] == np.arange(chain.classes))
    return found
