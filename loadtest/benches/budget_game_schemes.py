"""How the bench's row is shared: by a central allocator, equally, by policies that players learnt, without a governor.

A scheme says, epoch by epoch, what every player asks for and what it gets: watts beside its own at full speed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from headrace.budgets import stages
from headrace.budgets.loads import LOAD_MOST
from headrace.control.constants import H100
from headrace.core.budget.building import game, tables
from headrace.core.budget.facts import Facts, Player, Utility, scaled
from headrace.core.budget.learning import ETA, SAMPLES
from headrace.core.budget.loads import estimate
from headrace.core.budget.policy import Policy
from headrace.core.games import LEARNERS, publish
from headrace.core.games.game import Game
from headrace.core.power.allocator import StageLoad, greedy
from loadtest.benches.budget_game_scene import EPOCH_S, POOLS, World

Floats = NDArray[np.float64]
LEVELS = np.array(stages.LEVELS)
# What the central allocator chooses among: finer than the players' levels.
GRID = np.array([0.18, 0.22, 0.26, 0.3, 0.35, 0.4, 0.45, 0.52, 0.6, 0.7, 0.8, 0.9, 1.0])
LEAST_W, TIE = 120.0, 1e-3
PRICE = 0.1
# kappa and price of the spike that the comparison began with.
LEARNT: dict[str, tuple[str, float, float]] = {
    "oftrl selfish": ("stage_oftrl", 0.0, 0.0),
    "oftrl selfish, price": ("stage_oftrl", 0.0, PRICE),
    "oftrl shared, price": ("stage_oftrl", 0.5, PRICE),
    "ftrl shared, price": ("stage_ftrl", 0.5, PRICE),
}


Shares = tuple[Floats, Floats]
# Of an epoch: its number, the loads that are seen, the limit; and what each player asks for and gets.
Scheme = Callable[[int, Floats, float], Shares]


@dataclass(frozen=True, slots=True)
class Given:
    """[epoch, player]."""

    asked: Floats
    got: Floats
    limit: Floats  # [epoch], of all watts at full speed
    loads: Floats  # with what was left of the epoch before
    done: Floats


def live(world: World, fresh: Floats, limit: Floats, scheme: Scheme, *, late: bool = False) -> Given:
    """late: what is seen is an epoch old."""
    loads, asked, got, done = (np.empty_like(fresh) for _ in range(4))
    left = np.zeros(fresh.shape[1])
    for epoch, most in enumerate(limit):
        loads[epoch] = np.minimum(fresh[epoch] + left, LOAD_MOST)
        seen = loads[max(0, epoch - 1)] if late else loads[epoch]
        asked[epoch], got[epoch] = scheme(epoch, seen, float(most))
        done[epoch] = world.done(loads[epoch], got[epoch])
        left = loads[epoch] * (1.0 - done[epoch]) if world.carry else left
    return Given(asked, got, limit, loads, done)


def equal(players: int) -> Scheme:
    def scheme(_epoch: int, _loads: Floats, limit: float) -> Shares:
        return np.full(players, limit), np.full(players, limit)

    return scheme


def thrift(world: World) -> Scheme:
    """No game and nobody to ask: within its equal share each takes what is best for it alone, at the same price."""

    def scheme(_epoch: int, loads: Floats, limit: float) -> Shares:
        least = np.minimum(GRID, limit)
        got = np.empty_like(loads)
        for player, own in enumerate(world.known):
            got[player] = least[int(np.argmax(own.of(np.full(len(least), loads[player]), least) - PRICE * least))]
        return got, got

    return scheme


def central(world: World, utilities: Sequence[Utility], price: float = 0.0) -> Scheme:
    """The best of all shares on GRID by what it takes the utilities to be, less a price on watts; of equals that which
    takes least."""
    weights = np.array(world.weights)
    joint = np.array(list(product(GRID, repeat=len(weights))))
    taken = joint @ weights

    def scheme(_epoch: int, loads: Floats, limit: float) -> Shares:
        done = np.stack([each.of(loads[at], joint[:, at]) for at, each in enumerate(utilities)], axis=-1)
        worth = world.goodput(np.broadcast_to(loads, done.shape), done) - (price + TIE) * taken
        best = joint[int(np.argmax(np.where(taken <= limit + 1e-9, worth, -np.inf)))]
        return best, best

    return scheme


def allocator(world: World) -> Scheme:
    """The one that ships, for stage pools: every watt to the narrowest stage, all of the budget given out."""
    weights, gpus = np.array(world.weights), float(sum(POOLS.values()))
    full = {"decode": H100.decode_w}

    def scheme(_epoch: int, loads: Floats, limit: float) -> Shares:
        asked = [
            StageLoad(
                name,
                count,
                float(loads[at]) * count,
                H100.context_w,
                full.get(name, H100.prefill_w),
                LEAST_W,
                H100.speed_exponent,
                H100.decode_free_speed if name == "decode" else 1.0,
                H100.speed_least,
            )
            for at, (name, count) in enumerate(POOLS.items())
        ]
        watts = np.array(greedy(asked, limit * gpus * H100.prefill_w))
        share = watts / (weights * gpus * H100.prefill_w)
        return share, share

    return scheme


# --- learnt ---


def facts_of(
    world: World, loads: Floats, utilities: Sequence[Utility], budget: float, kappa: float, price: float
) -> Facts:
    """loads: [epoch, player], that chains are estimated from."""
    headroom, following = stages.headroom(budget)
    players = tuple(
        Player(name, world.weights[at], estimate(loads[:, at], stages.CLASSES), utilities[at])
        for at, name in enumerate(world.names)
    )
    return Facts(players, stages.LEVELS, headroom, following, kappa, price, world.together, carry=world.carry)


def learnt(facts: Facts, learner: str, iterations: int, seed: int) -> Policy:
    return _learnt(facts, game(facts), learner, iterations, seed)


def learnt_privately(facts: Facts, others: Sequence[Utility], learner: str, iterations: int, seed: int) -> Policy:
    """Each player knows its own utility and takes the others' to be `others`: that is what its reward is of."""
    rewards = []
    for own in range(len(facts.players)):
        seen = tuple(
            player if at == own else replace(player, utility=others[at]) for at, player in enumerate(facts.players)
        )
        rewards.append(tables(replace(facts, players=seen))[0][own])
    whole = game(facts)
    stacked = np.stack(rewards)[:, None]
    shape = (stacked.shape[0], facts.horizon, *stacked.shape[2:])
    return _learnt(facts, Game(np.broadcast_to(stacked, shape), whole.transitions), learner, iterations, seed)


def _learnt(facts: Facts, built: Game, learner: str, iterations: int, seed: int) -> Policy:
    plays = LEARNERS[learner](built, iterations, ETA)
    return Policy(facts, publish(plays, built, SAMPLES, np.random.default_rng(seed)), seed, EPOCH_S)


def played(policy: Policy, late: Sequence[int] = ()) -> Scheme:
    """By all players in step. late: players whose clocks are an epoch behind; they scale by what they believe."""
    weights = policy.facts.weights

    def scheme(epoch: int, loads: Floats, limit: float) -> Shares:
        state = state_of(policy, loads, limit)
        asked = policy.levels(state, epoch)
        got = scaled(asked * weights, limit) / weights
        for player in late:
            behind = policy.levels(state, max(0, epoch - 1))
            asked[player], got[player] = behind[player], (scaled(behind * weights, limit) / weights)[player]
        return asked, got

    return scheme


def alone(policy: Policy) -> Scheme:
    """As live workers do without a governor: each sees its own load, the others' as they were when it fell silent, and
    never goes above its fallback, an equal share."""
    weights, frozen = policy.facts.weights, []

    def scheme(epoch: int, loads: Floats, limit: float) -> Shares:
        frozen.append((loads.copy(), limit))
        before, limit_then = frozen[0]
        got = np.empty_like(loads)
        for player in range(len(loads)):
            seen = before.copy()
            seen[player] = loads[player]
            levels = policy.levels(state_of(policy, seen, limit_then), epoch)
            got[player] = min((scaled(levels * weights, limit_then) / weights)[player], limit)
        return got, got

    return scheme


def state_of(policy: Policy, load: Floats, limit: float) -> int:
    classes = tuple(int(player.chain.of(each)) for player, each in zip(policy.facts.players, load, strict=True))
    return policy.facts.state(policy.headroom(float(limit)), classes)
