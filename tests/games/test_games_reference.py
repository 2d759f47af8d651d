"""The reference tables of the method (loadtest.reproduce.oftrl_reference), and what they are quoted for. Stages are cut
where the run ends, as there.
"""

import numpy as np
import pytest

from headrace.core.games import LEARNERS, ce_gap
from headrace.core.games.blum_mansour import learn_from, proven_eta
from loadtest.reproduce.oftrl_games import cyclic_game, random_game, shapley_game, shapley_start
from loadtest.reproduce.oftrl_reference import AT, BAND, CYCLIC, RANDOM, SEEDS, Row
from loadtest.reproduce.oftrl_runs import Make, ends_slope, measured


@pytest.mark.parametrize("row", RANDOM, ids=str)
def test_gaps_on_the_random_game(row: Row) -> None:
    _same(random_game, row)


@pytest.mark.parametrize("row", CYCLIC, ids=str)
def test_gaps_on_the_cyclic_game(row: Row) -> None:
    _same(cyclic_game, row)


def _same(make: Make, row: Row) -> None:
    gaps = measured(make, row.learner, row.eta, AT, SEEDS).mean()
    assert list(gaps.values()) == pytest.approx(row.gaps, rel=BAND)
    assert ends_slope(gaps, AT[0], AT[-1]) == pytest.approx(row.slope, abs=0.02)


def test_optimism_matters_where_play_goes_in_circles() -> None:
    """Slope about -1 with it; without it the gap comes back."""
    at = (200, 400, 800, 1600, 3200)
    with_it, without = (measured(cyclic_game, name, 0.5, at, (0, 1)) for name in ("smooth_oftrl", "smooth_ftrl"))
    assert -1.2 <= with_it.slope() <= -0.85
    assert without.mean()[3200] >= 5 * with_it.mean()[3200]


def test_swap_gap_of_shapleys_game() -> None:
    game = shapley_game()
    learnt = learn_from(game, 3200, proven_eta(game), shapley_start())
    assert np.abs(learnt.plays[-1] - 1 / 3).max() < 0.01
    assert ce_gap(game, learnt) <= 0.001


def test_blum_mansour_closes_swap_gaps_that_hedging_leaves_open() -> None:
    """Shapley's game with entries moved, where play goes round."""
    game = shapley_game(1, noise=0.1)
    assert ce_gap(game, LEARNERS["bm_log_barrier"](game, 1600, 4.0)) < 0.005
    assert ce_gap(game, LEARNERS["smooth_oftrl"](game, 1600, 0.5)) > 0.02
