"""Gaps against counting out: every way to leave on tiny games, and games whose gap is known by hand."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import numpy as np
import pytest

from headrace.core.games import LEARNERS, Certified, Game, best_response_gain, cce_gap_of_table, informed_gain
from headrace.core.games.chains import Smooth
from headrace.core.games.game import Floats, against_others
from headrace.core.games.gaps import Leaving, coarse, gains, joint, swapping
from headrace.core.games.learnt import Learnt
from loadtest.reproduce.oftrl_games import cyclic_game, random_game

# (step, state, index of the step before, action told) -> action played
Way = Callable[[int, int, int, int], int]


def mixed_sizes(seed: int) -> Game:
    """Three players with two, one and three actions."""
    rng = np.random.default_rng(seed)
    return Game(rng.random((3, 2, 2, 2, 1, 3)), rng.dirichlet(np.ones(2), size=(2, 2, 2, 1, 3)))


def value(game: Game, learnt: Learnt, player: int, way: Way, step: int, state: int, before: int) -> float:
    """By recursion over indices, joint actions and next states, as it is defined."""
    if step == game.horizon:
        return 0.0
    total = 0.0
    for index, chance in upcoming(learnt, step, before):
        for told in product(*map(range, game.actions)):
            likely = chance * math.prod(float(learnt.plays[index, i, step, state, a]) for i, a in enumerate(told))
            played = list(told)
            played[player] = way(step, state, before, told[player])
            cell = (step, state, *played)
            won = game.rewards[(player, *cell)]
            for following, there in enumerate(game.transitions[cell]):
                won += there * value(game, learnt, player, way, step + 1, following, index)
            total += likely * won
    return float(total)


def upcoming(learnt: Learnt, step: int, before: int) -> Iterator[tuple[int, float]]:
    chain = learnt.chain
    if isinstance(chain, Smooth):
        count = before + 1 if step else chain.iterations
        weights = Smooth(count, chain.horizon).weights(0)
    else:
        weights = chain.weights(step)
    return ((int(index), float(weights[index])) for index in np.flatnonzero(weights))


def ways(game: Game, learnt: Learnt, player: int, swaps: bool) -> Iterator[Way]:
    """All deterministic ones; what is known of the past is told apart where the chain depends on it."""
    own = game.actions[player]
    pasts = range(learnt.chain.iterations) if isinstance(learnt.chain, Smooth) else range(1)
    places = [(0, s, 0) for s in range(game.states)] + [
        (h, s, j) for h in range(1, game.horizon) for s in range(game.states) for j in pasts
    ]
    answers = list(product(range(own), repeat=own)) if swaps else [(a,) * own for a in range(own)]
    past_counts = len(pasts) > 1
    for chosen in product(answers, repeat=len(places)):
        yield partial(_looked_up, dict(zip(places, chosen, strict=True)), past_counts)


def _looked_up(
    table: dict[tuple[int, int, int], tuple[int, ...]], past_counts: bool, step: int, state: int, before: int, told: int
) -> int:
    return table[step, state, before if step and past_counts else 0][told]


def counted(game: Game, learnt: Learnt, player: int, swaps: bool) -> list[float]:
    """Of each first state."""
    found = []
    for state in range(game.states):
        stay = value(game, learnt, player, lambda h, s, j, told: told, 0, state, 0)
        best = max(value(game, learnt, player, way, 0, state, 0) for way in ways(game, learnt, player, swaps))
        found.append(best - stay)
    return found


@pytest.mark.parametrize("leaving", [coarse, swapping])
@pytest.mark.parametrize(
    ("game", "name", "iterations"),
    [
        (random_game(1, actions=2, states=1, horizon=2), "smooth_oftrl", 3),
        (random_game(2, actions=2, states=2, horizon=2), "stage_oftrl", 5),
        (random_game(3, actions=2, states=2, horizon=1), "smooth_ftrl", 4),
        (random_game(4, players=3, actions=2, states=1, horizon=2), "hedge_current", 3),
        (random_game(5, actions=3, states=1, horizon=1), "bm_log_barrier", 3),
    ],
)
def test_gains_are_those_of_the_best_way_of_all(game: Game, name: str, iterations: int, leaving: Leaving) -> None:
    learnt = LEARNERS[name](game, iterations, 2.0)
    found = gains(game, learnt, leaving)
    for player in range(game.players):
        assert found[player] == pytest.approx(counted(game, learnt, player, leaving is swapping), abs=1e-12)


def test_players_may_have_different_numbers_of_actions() -> None:
    game = mixed_sizes(0)
    learnt = LEARNERS["stage_oftrl"](game, 5, 1.0)
    found = gains(game, learnt, coarse)
    assert found[2] == pytest.approx(counted(game, learnt, 2, swaps=False), abs=1e-12)
    assert found[1] == pytest.approx([0.0, 0.0], abs=1e-12)  # who has one action cannot leave


def test_an_exact_equilibrium_has_no_gap() -> None:
    """Matching pennies for three steps, both even; and coordination, both always left."""
    pennies = np.array([[1.0, 0.0], [0.0, 1.0]])
    cells = np.broadcast_to(np.stack([pennies, 1 - pennies])[:, None, None], (2, 3, 2, 2, 2)).copy()
    even = Game(cells, np.full((3, 2, 2, 2, 2), 0.5))
    assert cce_gap_of_table(even, np.full((3, 1, 2, 2, 2), 0.5)) == pytest.approx(0.0, abs=1e-12)
    both = Game(np.broadcast_to(pennies, (2, 1, 1, 2, 2)).copy(), np.ones((1, 1, 2, 2, 1)))
    left = np.zeros((1, 1, 2, 1, 2))
    left[..., 0] = 1.0
    assert cce_gap_of_table(both, left) == pytest.approx(0.0, abs=1e-12)
    assert best_response_gain(both, left) == pytest.approx([0.0, 0.0], abs=1e-12)


def test_a_traffic_light_is_a_correlated_equilibrium_of_both_kinds() -> None:
    """Chicken: who goes while the other waits wins 1, both go: 0. A shared coin says who goes."""
    own = np.array([[0.6, 0.2], [1.0, 0.0]])  # wait, go
    game = Game(np.stack([own, own.T])[:, None, None], np.ones((1, 1, 2, 2, 1)))
    light = np.zeros((1, 2, 2, 1, 2))
    light[0, 0, 0, 0, 1] = light[0, 0, 1, 0, 0] = light[0, 1, 0, 0, 0] = light[0, 1, 1, 0, 1] = 1.0
    learnt = Learnt(np.moveaxis(light, 0, 2), LEARNERS["hedge_myopic"](game, 2, 1.0).chain)
    assert gains(game, learnt, swapping) == pytest.approx(np.zeros((2, 1)), abs=1e-12)
    assert best_response_gain(game, light) == pytest.approx([-0.1, -0.1])  # always go: 0.5, always wait: 0.4, stay: 0.6
    assert informed_gain(game, light) == pytest.approx([0.0, 0.0], abs=1e-12)


def test_dominated_play_has_the_gap_known_by_hand() -> None:
    """Prisoners who stay silent for three steps: each would win 0.4 a step by telling."""
    own = np.array([[0.6, 0.0], [1.0, 0.2]])
    cells = np.broadcast_to(np.stack([own, own.T])[:, None, None], (2, 3, 2, 2, 2)).copy()
    game = Game(cells, np.full((3, 2, 2, 2, 2), 0.5))
    silent = np.zeros((3, 1, 2, 2, 2))
    silent[..., 0] = 1.0
    assert best_response_gain(game, silent) == pytest.approx([1.2, 1.2])
    assert informed_gain(game, silent) == pytest.approx([1.2, 1.2])


def test_against_others_is_the_sum_over_all_they_do() -> None:
    rng = np.random.default_rng(3)
    payoffs, mixed = rng.random((5, 2, 3, 4)), [rng.dirichlet(np.ones(n), 5) for n in (2, 3, 4)]
    sums = ("txab,ta,tb->tx", "taxb,ta,tb->tx", "tabx,ta,tb->tx")
    for player, letters in enumerate(sums):
        others = [each for other, each in enumerate(mixed) if other != player]
        assert against_others(payoffs, mixed, player) == pytest.approx(np.einsum(letters, payoffs, *others))


def test_joint_actions_sum_to_one_and_have_the_players_shares() -> None:
    game = mixed_sizes(1)
    learnt = LEARNERS["smooth_oftrl"](game, 40, 0.5)
    weights = learnt.chain.weights(1)
    together = joint(game, learnt.plays[:, :, 1], weights)
    assert together.sum((1, 2, 3)) == pytest.approx([1.0, 1.0])
    assert together.sum((1, 2)) == pytest.approx(np.einsum("t,tsa->sa", weights, learnt.plays[:, 2, 1]))


@pytest.mark.parametrize("name", ["stage_oftrl", "smooth_oftrl", "hedge_current"])
def test_execution_from_a_seed_plays_what_the_chain_says(name: str) -> None:
    """How often each index comes at each step, over 4,000 epochs."""
    game = cyclic_game(0)
    learnt = LEARNERS[name](game, 12, 0.5)
    policy, epochs = Certified(learnt), 4000
    drawn = np.array([policy.indices(7, epoch) for epoch in range(epochs)])
    for step in range(game.horizon):
        shares = np.bincount(drawn[:, step], minlength=12) / epochs
        assert np.abs(shares - learnt.chain.weights(step)).max() < 0.03
    actions: Floats = np.bincount([policy.action(1, 0, 0, 7, epoch) for epoch in range(epochs)], minlength=3) / epochs
    assert np.abs(actions - learnt.chain.weights(0) @ learnt.plays[:, 1, 0, 0]).max() < 0.03
