"""Equilibrium learning in finite-horizon general-sum Markov games: one file a learner, one line in the registry.

See docs/games.md. A learner turns a game into plays and a chain over them; gaps tell how good that is, and publish()
makes of it what players execute on their own.
"""

from functools import partial

from headrace.core.games import adaptive, blum_mansour, hedge, smooth, stage
from headrace.core.games.certified import Certified
from headrace.core.games.game import Game
from headrace.core.games.gaps import best_response_gain, cce_gap, cce_gap_of_table, ce_gap, informed_gain
from headrace.core.games.learnt import Learner, Learnt
from headrace.core.games.published import Published, publish

LEARNERS: dict[str, Learner] = {
    "stage_oftrl": stage.learn,
    "stage_ftrl": partial(stage.learn, prediction=0.0),
    "smooth_oftrl": smooth.learn,
    "smooth_ftrl": partial(smooth.learn, prediction=0.0),
    "bm_log_barrier": blum_mansour.learn,
    "adaptive": adaptive.learn,
    "hedge_myopic": hedge.learn_myopic,
    "hedge_current": hedge.learn_current,
}

__all__ = [
    "LEARNERS",
    "Certified",
    "Game",
    "Learner",
    "Learnt",
    "Published",
    "best_response_gain",
    "cce_gap",
    "cce_gap_of_table",
    "ce_gap",
    "informed_gain",
    "publish",
]
