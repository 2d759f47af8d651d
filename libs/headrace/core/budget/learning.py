"""From a budget game's facts to the policy that players publish: learnt offline, with its exact gap.

Stage-based optimistic learning is the one whose gap provably falls as 1/T; other learners of the registry fit, too.
"""

import numpy as np

from headrace.core.budget.building import game
from headrace.core.budget.facts import Facts
from headrace.core.budget.policy import Policy
from headrace.core.games import LEARNERS, publish

LEARNER = "stage_oftrl"
ITERATIONS, ETA = 4_000, 4.0  # [I] a gap below 0.01 with three players, in less than a second
SAMPLES = 64  # plays a step that are published
EPOCH_S = 10.0  # what the central allocator's shares hold for, too


def learn(
    facts: Facts,
    seed: int,
    *,
    learner: str = LEARNER,
    iterations: int = ITERATIONS,
    eta: float = ETA,
    samples: int = SAMPLES,
    epoch_s: float = EPOCH_S,
) -> Policy:
    """seed: of the samples that are drawn, and what all players share afterwards.

    Raises InvalidInput: the game's tables are too large.
    """
    built = game(facts)
    published = publish(LEARNERS[learner](built, iterations, eta), built, samples, np.random.default_rng(seed))
    return Policy(facts, published, seed, epoch_s)
