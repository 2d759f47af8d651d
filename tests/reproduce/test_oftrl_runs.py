"""The parts of `headrace reproduce oftrl`: runs that are looked at before their end, slopes, and one size's point."""

import numpy as np
import pytest

from headrace.core.games import LEARNERS, cce_gap, ce_gap
from headrace.core.games.gaps import coarse, swapping
from loadtest.reproduce.oftrl_games import cyclic_game, random_game, shapley_game
from loadtest.reproduce.oftrl_runs import Gaps, curve, ends_slope
from loadtest.reproduce.oftrl_scaling import scaling
from loadtest.reproduce.oftrl_swaps import symmetric


@pytest.mark.parametrize("name", ["smooth_oftrl", "stage_oftrl", "hedge_current"])
def test_a_run_looked_at_is_one_that_ended_there(name: str) -> None:
    """26 iterations end a stage of horizon 3, so nothing is cut."""
    game = random_game(4)
    longer, ended = (LEARNERS[name](game, iterations, 0.5) for iterations in (70, 26))
    assert curve(game, longer, (26,)) == pytest.approx([cce_gap(game, ended)])
    assert curve(game, longer, (26,), swapping) == pytest.approx([ce_gap(game, ended)])
    least, most = (curve(game, longer, (26,), gap)[0] for gap in (coarse, swapping))
    assert least <= most or least == pytest.approx(most), "every deviation is also a swap"


def test_slopes() -> None:
    at = (100, 200, 400)
    gaps = Gaps(at, np.array([[1.0, 0.5, 0.25], [3.0, 1.5, 0.75], [2.0, 2.0, 2.0]]))
    assert gaps.slope(2) == pytest.approx(-1.0)
    assert gaps.slopes().mean == pytest.approx(-2 / 3)
    assert ends_slope(gaps.mean(2), 100, 400) == pytest.approx(-1.0)


def test_games_are_what_they_are_called() -> None:
    """Cyclic: who plays the next move wins, give or take the noise; Shapley's: even mixtures are worth a half."""
    game = cyclic_game(2)
    assert np.abs(game.rewards[0] + game.rewards[1] - 1.0).max() <= 0.2
    assert (game.rewards[0, :, :, 0, 1] > game.rewards[0, :, :, 0, 2] + 0.7).all()
    assert shapley_game().rewards.mean((1, 2, 4)) == pytest.approx(np.full((2, 3), 0.5))


def test_a_point_of_the_scaling_chart() -> None:
    found = scaling({"states": (2, 3)}, 60, (0, 1))["states"]["smooth_oftrl"]
    assert [each.size for each in found] == [2, 3]
    assert all(0.0 < each.gap.mean < 1.0 and 0.0 < each.iteration_s < 1.0 for each in found)


def test_swap_gaps_by_step_size() -> None:
    found = symmetric((50, 100))
    assert found["proven 0.0045"][100] < found["proven 0.0045, plain averages"][100] < 0.003
