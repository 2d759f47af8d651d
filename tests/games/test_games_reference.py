"""The reference tables of the method: gaps of the certified policy on the random and the cyclic game, mean of seeds 0
and 1, as an independent slow program found them. Stages are cut where the run ends, as there.
"""

import numpy as np
import pytest

from headrace.core.games import ce_gap
from headrace.core.games.blum_mansour import learn_from, proven_eta
from loadtest.reproduce.oftrl_games import cyclic_game, random_game, shapley_game, shapley_start
from loadtest.reproduce.oftrl_runs import measured

AT = (200, 400, 800, 1600)
BAND = 0.03  # the tables have two or three digits
RANDOM = [
    ("stage_oftrl", 0.2, (0.348, 0.291, 0.134, 0.099)),
    ("stage_oftrl", 0.5, (0.195, 0.129, 0.053, 0.039)),
    ("smooth_oftrl", 0.2, (0.233, 0.097, 0.041, 0.0125)),
    ("smooth_oftrl", 0.5, (0.069, 0.032, 0.0072, 0.0023)),
    ("smooth_ftrl", 0.5, (0.073, 0.031, 0.0088, 0.0030)),
]
CYCLIC = [
    ("smooth_oftrl", 0.5, (0.0061, 0.0031, 0.0015, 0.00077)),
    ("smooth_ftrl", 0.5, (0.0063, 0.0032, 0.0023, 0.0169)),
    ("stage_oftrl", 0.5, (0.0268, 0.0027, 0.0018, 0.0015)),
    ("stage_ftrl", 0.5, (0.0321, 0.0095, 0.0110, 0.0158)),
]


@pytest.mark.parametrize(("name", "eta", "expected"), RANDOM)
def test_gaps_on_the_random_game(name: str, eta: float, expected: tuple[float, ...]) -> None:
    assert list(measured(random_game, name, eta, AT, (0, 1)).mean().values()) == pytest.approx(expected, rel=BAND)


@pytest.mark.parametrize(("name", "eta", "expected"), CYCLIC)
def test_gaps_on_the_cyclic_game(name: str, eta: float, expected: tuple[float, ...]) -> None:
    assert list(measured(cyclic_game, name, eta, AT, (0, 1)).mean().values()) == pytest.approx(expected, rel=BAND)


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
