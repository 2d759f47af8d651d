"""Linear tasks: a state-space model with quadratic cost, seen through noisy outputs of some of its states.

The timing is controlgym's (arXiv:2311.18736, MIT): the observation that answers an action is of the state *before* it,
with the very noise that drives the plant; only the first one, at reset, has noise of its own. So who acts always knows
the last state but one at best.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.control.tasks.base import Floats, Stepped


@dataclass(frozen=True, slots=True)
class Model:
    """x' = A x + B u + G w and y = C x + D w, w ~ N(0, noise_var I); a step costs x'Qx + u'Ru + 2 x'Su.

    The first state has this mean and covariance. Shapes: A [n, n], B [n, m], G [n, k], C [p, n], D [p, k].
    """

    a: Floats
    b: Floats
    g: Floats
    c: Floats
    d: Floats
    q: Floats
    r: Floats
    s: Floats
    noise_var: float
    mean: Floats
    cov: Floats


@dataclass(frozen=True, slots=True)
class LinearTask:
    """Actions are clipped to +-action_most. A step violates where an output, without noise, passes output_most.

    The last step also costs x'Px of the state that it leaves behind.
    """

    name: str
    model: Model
    start: Callable[[np.random.Generator], Floats]  # a first state
    steps: int
    action_most: float
    output_most: float
    rest: Floats  # P, [n, n]

    @property
    def observations(self) -> int:
        return len(self.model.c)

    @property
    def actions(self) -> int:
        found: int = self.model.b.shape[1]
        return found

    @property
    def action_range(self) -> tuple[float, float]:
        return -self.action_most, self.action_most

    def world(self, seeds: Sequence[int]) -> "LinearWorld":
        states, noises = [], []
        for seed in seeds:
            rng = np.random.default_rng(seed)
            states.append(self.start(rng))
            noises.append(rng.normal(0.0, np.sqrt(self.model.noise_var), (self.steps + 1, self.model.d.shape[1])))
        return LinearWorld(self, np.array(states), np.stack(noises, axis=1))


class LinearWorld:
    """state [env, n]; noises [step + 1, env, k], the first one of the observation at reset."""

    def __init__(self, task: LinearTask, state: Floats, noises: Floats) -> None:
        self._task, self.state, self._noises, self._now = task, state, noises, 0

    def first(self) -> Floats:
        return self._outputs(self._noises[0])

    def step(self, actions: Floats) -> Stepped:
        model, x = self._task.model, self.state
        self._now += 1
        noise = self._noises[self._now]
        seen = self._outputs(noise)
        self.state = x @ model.a.T + actions @ model.b.T + noise @ model.g.T
        violated = np.abs(x @ model.c.T).max(axis=1) > self._task.output_most
        cost = stage_cost(model, x, actions)
        if self._now == self._task.steps:
            cost = cost + np.einsum("ei,ei->e", self.state @ self._task.rest, self.state)
        return Stepped(seen, cost, violated)

    def _outputs(self, noise: Floats) -> Floats:
        found: Floats = self.state @ self._task.model.c.T + noise @ self._task.model.d.T
        return found


def stage_cost(model: Model, x: Floats, u: Floats) -> Floats:
    pairs = ((x @ model.q, x), (u @ model.r, u), (2.0 * x @ model.s, u))
    found: Floats = np.sum([np.einsum("ei,ei->e", left, right) for left, right in pairs], axis=0)
    return found
