"""One seed of the budget bench: loads, an emergency in the middle, every scheme of every scenario, and its figures."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headrace.budgets.loads import LOAD_MOST
from headrace.budgets.stages import CLASSES, EMERGENCY
from headrace.core.budget.facts import Utility, scaled
from headrace.core.budget.policy import Policy
from loadtest.benches.budget_game_scene import World
from loadtest.benches.budget_game_schemes import (
    LEARNT,
    LEVELS,
    PRICE,
    Given,
    Scheme,
    allocator,
    alone,
    central,
    equal,
    facts_of,
    learnt,
    learnt_privately,
    live,
    played,
    thrift,
)

Floats = NDArray[np.float64]
EMERGENCY_EPOCHS = (60, 75)  # of those that are played: a quarter of the budget is gone
WRONG_LOAD = 1.4  # times what was learnt from
OVER = 1e-6  # rounding is no violation
PRICES = {name: price for name, (_, _, price) in LEARNT.items()}
Schemes = Iterator[tuple[str, Scheme]]


@dataclass(frozen=True, slots=True)
class Case:
    world: World
    learn: Floats  # [epoch, player] loads
    play: Floats
    budget: float
    iterations: int
    seed: int
    emergency: bool = True

    @property
    def limit(self) -> Floats:
        found = np.full(len(self.play), self.budget)
        if self.emergency:
            found[slice(*EMERGENCY_EPOCHS)] *= EMERGENCY
        return found


def case_of(world: World, loads: Floats, budget: float, iterations: int, seed: int) -> Case:
    half = len(loads) // 2
    return Case(world, loads[:half], loads[half:], budget, iterations, seed)


# --- scenarios: each says which schemes there are, what they see, and which loads come ---


def policies(case: Case) -> dict[str, Policy]:
    found = {}
    for name, (learner, kappa, price) in LEARNT.items():
        facts = facts_of(case.world, case.learn, case.world.known, case.budget, kappa, price)
        found[name] = learnt(facts, learner, case.iterations, case.seed)
    return found


def simple(world: World, utilities: tuple[Utility, ...]) -> Schemes:
    """What a learnt policy has to beat."""
    if world.together == "least":
        yield "allocator", allocator(world)
    yield "central", central(world, utilities)
    yield "central, price", central(world, utilities, PRICE)
    yield "equal", equal(len(world.names))
    yield "equal, thrift", thrift(world)


def known(case: Case, made: dict[str, Policy]) -> Schemes:
    """Utilities are known to everybody, and loads are seen as they come, or an epoch late."""
    yield from simple(case.world, case.world.known)
    for name, policy in made.items():
        yield name, played(policy)


def private(case: Case, others: tuple[Utility, ...]) -> Schemes:
    """The allocator, and every player of the others, knows the mean of all utilities alone."""
    yield "(central, knows all)", central(case.world, case.world.known)
    yield from simple(case.world, others)
    for name, (learner, kappa, price) in LEARNT.items():
        facts = facts_of(case.world, case.learn, case.world.known, case.budget, kappa, price)
        yield name, played(learnt_privately(facts, others, learner, case.iterations, case.seed))


def down(case: Case, made: dict[str, Policy]) -> Schemes:
    """The governor is dead from the first epoch on: nobody tells of an emergency. In brackets: what does not ship."""
    yield "(central, alive)", central(case.world, case.world.known)
    yield "equal", equal(len(case.world.names))  # the fallback
    yield "equal, thrift", thrift(case.world)
    for name, policy in made.items():
        yield f"{name}: within the fallback", alone(policy)
        yield f"({name}: in step)", played(policy)
        yield f"({name}: one clock late)", played(policy, late=(0,))


def wrong(case: Case) -> Case:
    """Learnt from the same epochs in random order, at loads that are 1.4 times as high when it counts."""
    rng = np.random.default_rng([case.seed, 59])
    shuffled = np.stack([rng.permutation(column) for column in case.learn.T], axis=1)
    return replace(case, learn=shuffled, play=np.minimum(WRONG_LOAD * case.play, LOAD_MOST))


# --- figures ---


def figures(case: Case, name: str, given: Given) -> dict[str, float]:
    weights, loads, done = np.array(case.world.weights), given.loads, given.done
    asked = (loads * weights).sum(axis=1)
    own = (loads * done).sum(axis=0) / np.maximum(loads.sum(axis=0), 1e-9)
    served = float((case.world.goodput(loads, done) * asked).sum())
    return {
        "goodput": served / float((case.play * weights).sum()),
        "energy": float((case.world.drawn(loads, given.got) @ weights).sum()) / max(served, 1e-9),
        "worst": float(own.min()),
        "jain": float(own.sum() ** 2 / (len(own) * (own**2).sum())),
        "gain": _gain(case, given, 0.0),
        "gain_net": _gain(case, given, PRICES.get(name.strip("(").partition(":")[0], 0.0)),
        "violations": float((given.got @ weights > given.limit + OVER).sum()),
    }


def _gain(case: Case, given: Given, price: float) -> float:
    """The most that a player gains, in shares of its own work, less what it pays: by asking for one other level in each
    third of its loads, if shares were not enforced; when all together ask for too much, all are scaled as in the game.
    """
    best = 0.0
    for player, own in enumerate(case.world.truth):
        load = given.loads[:, player]
        now = own.of(load, given.got[:, player]) - price * given.asked[:, player]
        edges = np.quantile(case.learn[:, player], np.arange(1, CLASSES) / CLASSES)
        group = np.searchsorted(edges, load, side="right")
        worth = np.stack([own.of(load, _leaving(case, given, player, level)) - price * level for level in LEVELS])
        gained = 0.0
        for each in np.unique(group):
            here = group == each
            gained += max(0.0, float((worth[:, here].sum(axis=1)).max() - now[here].sum()))
        best = max(best, gained / len(load))
    return best


def _leaving(case: Case, given: Given, player: int, level: float) -> Floats:
    """[epoch]: what a player gets that always asks for this level."""
    weights, asked = np.array(case.world.weights), given.asked.copy()
    asked[:, player] = level
    found: Floats = (scaled(asked * weights, given.limit) / weights)[:, player]
    return found


def lie(case: Case) -> float:
    """What a tenant gains most by telling the central allocator that nothing is done with less than full watts."""
    world = case.world
    honest = live(world, case.play, case.limit, central(world, world.known))
    best = 0.0
    for player, own in enumerate(world.known):
        rows = tuple((0.0,) * (len(own.watts) - 1) + (1.0,) for _ in own.loads)
        told = list(world.known)
        told[player] = Utility(own.loads, own.watts, rows)
        lied = live(world, case.play, case.limit, central(world, told))
        best = max(best, float((lied.done - honest.done)[:, player].mean()))
    return best
