"""LQG: the regulator's gain on the Kalman predictor's state. On its own model no controller has a lower mean cost."""

import numpy as np

from headrace.control.experts.kalman import Estimator, Gains, kalman
from headrace.control.tasks.base import Floats
from headrace.control.tasks.linear import LinearTask, Model
from headrace.control.tasks.regulator import Regulator, cost_of_known_state, regulator


class Lqg:
    """For a task, with a model of it that may be wrong. Solved once; begin() gives a controller for some episodes."""

    def __init__(self, task: LinearTask, model: Model) -> None:
        self._model = model
        self._gains: Gains = kalman(model, task.steps)
        self._regulator: Regulator = regulator(model, task.rest, task.steps)

    def begin(self, envs: int) -> "Regulated":
        return Regulated(Estimator(self._model, self._gains, envs), -self._regulator.gains)

    def expected_cost(self) -> float:
        """Mean of an episode on this very model: that of a known state, and what not knowing it costs each step."""
        found = self._regulator
        steps = zip(found.gains, found.curvatures, self._gains.spread, strict=True)
        return self.bound() + sum(float(np.sum((gain.T @ bend @ gain) * spread)) for gain, bend, spread in steps)

    def bound(self) -> float:
        """Mean of an episode for who is told the state."""
        return cost_of_known_state(self._model, self._regulator)


class Regulated:
    """gains [step, m, n] on an estimated state."""

    def __init__(self, estimator: Estimator, gains: Floats) -> None:
        self._estimator, self._gains = estimator, iter(gains)

    def act(self, seen: Floats) -> Floats:
        found: Floats = self._estimator.follow(seen) @ next(self._gains).T
        return found

    def done(self, actions: Floats, costs: Floats) -> None:
        self._estimator.done(actions)
