"""A small budget game of three stage pools, its learnt policy, and policies that say anything at all."""

from dataclasses import replace
from functools import cache

import numpy as np

from headrace.budgets import stages
from headrace.control.constants import H100
from headrace.core.budget.facts import Facts
from headrace.core.budget.learning import learn
from headrace.core.budget.policy import Policy
from headrace.core.games.published import Published

POOLS = {"encode": 1, "prefill": 1, "decode": 1}
STAGES = tuple(POOLS)


@cache
def facts(budget: float = 0.62, kappa: float = 0.5, price: float = 0.1) -> Facts:
    rng = np.random.default_rng(5)
    loads = np.clip(0.7 + 0.3 * np.sin(np.arange(200) / 7.0)[:, None] + rng.normal(0.0, 0.1, (200, 3)), 0.05, 1.5)
    return stages.facts(POOLS, loads, H100, budget, kappa=kappa, price=price)


@cache
def policy(seed: int = 1) -> Policy:
    made = learn(facts(), seed, iterations=300, samples=8)
    return Policy.from_bytes(made.to_bytes())


def anything(seed: int) -> Policy:
    """Of the same players, whose table and gap are drawn."""
    own = facts()
    rng = np.random.default_rng(seed)
    shape = (own.horizon, 4, len(own.players), own.states, len(own.levels))
    table = rng.dirichlet(np.full(len(own.levels), 0.3), shape[:-1]).astype(np.float32)
    return replace(policy(), published=Published(table, float(rng.random())), seed=seed)
