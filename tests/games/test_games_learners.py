"""What holds for every learner on any game, and the closed forms inside them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.games import LEARNERS, Game, cce_gap, ce_gap
from headrace.core.games.adaptive import pace
from headrace.core.games.blum_mansour import log_barrier, stationary
from headrace.core.games.chains import Flat, Smooth, Stages, stage_ends
from headrace.core.games.game import sweep
from headrace.core.games.learnt import softmax
from loadtest.reproduce.oftrl_games import cyclic_game, random_game

SIZES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))


def any_game(players: int, horizon: int, states: int, seed: int) -> Game:
    rng = np.random.default_rng(seed)
    cells = (horizon, states, *rng.integers(1, 4, players))
    return Game(rng.random((players, *cells)), rng.dirichlet(np.ones(states), size=cells))


@pytest.mark.parametrize("name", LEARNERS)
@given(sizes=SIZES, eta=st.sampled_from([0.01, 0.5, 20.0]))
@settings(max_examples=8, deadline=None)
def test_plays_are_distributions_and_gaps_are_within_what_can_be_won(
    name: str, sizes: tuple[int, int, int, int], eta: float
) -> None:
    game = any_game(*sizes)
    learnt = LEARNERS[name](game, 30, eta)
    assert learnt.plays.min() >= 0.0
    assert np.abs(learnt.plays.sum(-1) - 1.0).max() < 1e-9
    barred = np.broadcast_to(~game.own()[:, None, None], learnt.plays.shape[1:])
    assert not learnt.plays[:, barred].any()  # actions that a player does not have
    for step in range(game.horizon):
        assert learnt.chain.weights(step).sum() == pytest.approx(1.0)
    assert 0.0 <= cce_gap(game, learnt) <= ce_gap(game, learnt) + 1e-9 <= game.horizon + 2e-9


@pytest.mark.parametrize("name", LEARNERS)
def test_a_longer_run_begins_as_a_shorter_one(name: str) -> None:
    game = random_game(5)
    longer, shorter = (LEARNERS[name](game, iterations, 0.5).plays for iterations in (60, 25))
    assert longer[:25] == pytest.approx(shorter, abs=1e-14)


@pytest.mark.parametrize("name", ["stage_oftrl", "smooth_oftrl", "adaptive", "hedge_current"])
def test_learning_closes_most_of_the_gap(name: str) -> None:
    game = random_game(8)
    early, late = (cce_gap(game, LEARNERS[name](game, iterations, 0.5)) for iterations in (25, 1000))
    assert late < 0.25 * early


def test_what_is_never_learnt_stays_open() -> None:
    """Without value updates the continuation is unknown, however long it learns."""
    gaps = [cce_gap(random_game(0), LEARNERS["hedge_myopic"](random_game(0), t, 0.5)) for t in (500, 2000)]
    assert min(gaps) > 10 * cce_gap(random_game(0), LEARNERS["smooth_oftrl"](random_game(0), 2000, 0.5))


def test_a_sweep_at_full_share_values_the_profile() -> None:
    """Each step sees the values that the sweep has just given the next one."""
    game = random_game(6, states=2, actions=2)
    profile = np.random.default_rng(0).dirichlet(np.ones(2), size=(2, 3, 2))
    values = game.optimistic()
    utilities = sweep(game, profile, values, 1.0)
    ahead = np.zeros((2, 2))
    for step in (2, 1, 0):
        payoffs = game.rewards[:, step] + np.einsum("sabx,nx->nsab", game.transitions[step], ahead)
        ahead = np.einsum("nsab,sa,sb->ns", payoffs, *profile[:, step])
        assert values[:, step] == pytest.approx(ahead)
        assert utilities[1, step] == pytest.approx(np.einsum("sab,sa->sb", payoffs[1], profile[0, step]))


def test_stages_grow_by_their_share() -> None:
    assert stage_ends(40, 3) == (3, 7, 12, 18, 26, 36)  # lengths 3, 4, 5, 6, 8, 10
    assert stage_ends(7, 1) == (1, 3, 7)
    chain = Stages(40, 3, stage_ends(40, 3))
    assert [chain.span(step) for step in range(3)] == [(26, 36), (18, 26), (12, 18)]


def test_smooth_weights_are_those_of_the_updates() -> None:
    """alpha_t^j = alpha_j (1 - alpha_{j+1}) ... (1 - alpha_t), by the book; then two steps of the chain."""
    iterations, horizon = 7, 3
    alpha = [(horizon + 1) / (horizon + t) for t in range(1, iterations + 1)]
    single = np.array([[alpha[j] * np.prod([1 - a for a in alpha[j + 1 : t + 1]]) for j in range(7)] for t in range(7)])
    single = np.tril(single)
    chain = Smooth(iterations, horizon)
    assert chain.weights(0) == pytest.approx(single[-1])
    assert chain.weights(2) == pytest.approx(single[-1] @ single @ single)


@pytest.mark.parametrize(("chain", "expected"), [(Flat(4), (0, 1, 3)), (Stages(7, 1, (1, 3, 7)), (3, 4, 6))])
def test_draws_cover_their_iterations(chain: Flat | Stages, expected: tuple[int, ...]) -> None:
    assert tuple(chain.draw(0, 0, share) for share in (0.0, 0.25, 0.999999)) == expected


@given(scores=st.lists(st.floats(-300, 300), min_size=1, max_size=6))
def test_log_barrier_rows_solve_their_problem(scores: list[float]) -> None:
    """1 / x_r + score_r is the same for all r."""
    found = log_barrier(np.array(scores))
    level = 1.0 / found + np.array(scores)
    assert found.sum() == pytest.approx(1.0)
    assert np.ptp(level) < 1e-6 * max(1.0, np.abs(level).max())


def test_log_barrier_leaves_out_what_a_player_does_not_have() -> None:
    assert log_barrier(np.array([1.0, 1.0, -np.inf])) == pytest.approx([0.5, 0.5, 0.0])


def test_stationary_is_left_as_it_is() -> None:
    chains = np.random.default_rng(1).dirichlet(np.ones(5), size=(2, 3, 5))
    found = stationary(chains)
    assert np.einsum("xya,xyab->xyb", found, chains) == pytest.approx(found)


def test_pace_slows_where_regret_is_very_negative() -> None:
    regrets = np.array([[0.5, -1.0], [-1.9, -2.5], [-40.0, -30.0]])
    found = pace(regrets, 0.0, caution=2.0)
    assert found[0] == 1.0
    assert found[2] < found[1] <= 1.0
    mean = (softmax(found[2] * regrets[2]) * regrets[2]).sum()
    assert found[2] * mean == pytest.approx(-2.0, abs=1e-6)


def test_at_full_pace_adaptive_is_smooth() -> None:
    """Its regrets differ from utilities by a number for all actions, which a softmax does not see."""
    game = cyclic_game(3)
    slow, plain = (LEARNERS[name](game, 200, 0.5).plays for name in ("adaptive", "smooth_oftrl"))
    assert slow == pytest.approx(plain, abs=1e-9)


def test_memory_is_bounded() -> None:
    with pytest.raises(AssertionError, match="at most"):
        LEARNERS["smooth_oftrl"](random_game(0), 10**7, 0.5)


@pytest.mark.parametrize(("rewards", "ahead"), [(1.5, 1.0), (-0.1, 1.0), (0.5, 0.9), (0.5, -1.0)])
def test_a_game_says_what_is_wrong_with_it(rewards: float, ahead: float) -> None:
    with pytest.raises(AssertionError):
        Game(np.full((1, 1, 1, 2), rewards), np.full((1, 1, 2, 1), ahead))
