"""Games to learn in: random ones, cyclic ones where plain FTRL goes round in circles, and Shapley's."""

import numpy as np

from headrace.core.games.game import Floats, Game

_CYCLE = np.array([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]])
_SHAPLEY = np.array(
    [[[0.0, 1.0, 0.5], [0.5, 0.0, 1.0], [1.0, 0.5, 0.0]], [[0.0, 0.5, 1.0], [1.0, 0.0, 0.5], [0.5, 1.0, 0.0]]]
)
_NOISE = 0.1


def random_game(seed: int, *, players: int = 2, actions: int = 4, states: int = 4, horizon: int = 3) -> Game:
    """Rewards even in [0, 1], next states from a flat Dirichlet distribution: test A at its default sizes."""
    rng = np.random.default_rng(seed)
    cells = (horizon, states, *(actions,) * players)
    rewards = rng.random((players, *cells))
    return Game(rewards, rng.dirichlet(np.ones(states), size=cells))


def cyclic_game(seed: int, *, states: int = 2, horizon: int = 2) -> Game:
    """Rock, paper, scissors in every state, each entry moved by up to 0.1: test B at its default sizes."""
    rng = np.random.default_rng(seed)
    noise = rng.uniform(-_NOISE, _NOISE, (horizon, states, 2, 3, 3))
    rewards = np.clip(np.stack([_CYCLE, 1.0 - _CYCLE]) + noise, 0.0, 1.0)
    return Game(np.moveaxis(rewards, 2, 0), rng.dirichlet(np.ones(states), size=(horizon, states, 3, 3)))


def shapley_game(seed: int = 0, *, noise: float = 0.0) -> Game:
    """One step, one state: whoever answers best goes round in circles. Its symmetric form has one equilibrium of
    independent players, the even mixtures.
    """
    moved = _SHAPLEY + np.random.default_rng(seed).uniform(-noise, noise, _SHAPLEY.shape)
    return Game(np.clip(moved, 0.0, 1.0)[:, None, None], np.ones((1, 1, 3, 3, 1)))


def shapley_start() -> Floats:
    """(2, 1, 1, 3): a first play that is no equilibrium; from even mixtures nothing moves."""
    return np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])[:, None, None]
