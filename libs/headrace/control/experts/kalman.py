"""The Kalman predictor of a task's model, from an honest start: the mean and covariance of first states, no state.

Process and sensors share their noise (`Model`), which the gain accounts for; controlgym's does not, and its estimator
is handed the true first state.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from headrace.control.tasks.base import Floats
from headrace.control.tasks.linear import Model

_CUT = 1e-9  # of innovations' variances beside the largest: directions that are known exactly teach nothing


@dataclass(frozen=True, slots=True)
class Gains:
    """first [n, p]: of the observation at reset. later [step, n, p]: of what answers the step's action."""

    first: Floats
    later: Floats
    spread: Floats  # [step, n, n]: covariance of the estimate's error when the step's action is chosen


def kalman(model: Model, steps: int) -> Gains:
    a, c = model.a, model.c
    process = model.noise_var * model.g @ model.g.T
    sensor = model.noise_var * model.d @ model.d.T
    shared = model.noise_var * model.g @ model.d.T
    p = model.cov
    first = p @ c.T @ _inverse(c @ p @ c.T + sensor)
    p = p - first @ c @ p
    later, spreads = [], []
    for _ in range(steps):
        spreads.append(p)
        seen = c @ p @ c.T + sensor
        gain = (a @ p @ c.T + shared) @ _inverse(seen)
        p = a @ p @ a.T + process - gain @ seen @ gain.T
        p = 0.5 * (p + p.T)
        later.append(gain)
    return Gains(first, np.array(later), np.array(spreads))


def _inverse(symmetric: Floats) -> Floats:
    return np.asarray(np.linalg.pinv(symmetric, rcond=_CUT, hermitian=True), float)


class Estimator:
    """States [env, n], each the mean given all that was seen and done."""

    def __init__(self, model: Model, gains: Gains, envs: int) -> None:
        self._model, self._first = model, gains.first
        self._later: Iterator[Floats] = iter(gains.later)
        self.x: Floats = np.tile(model.mean, (envs, 1))
        self._done: Floats | None = None

    def follow(self, seen: Floats) -> Floats:
        model, off = self._model, seen - self.x @ self._model.c.T
        if self._done is None:
            self.x = self.x + off @ self._first.T
        else:
            self.x = self.x @ model.a.T + self._done @ model.b.T + off @ next(self._later).T
        return self.x

    def done(self, actions: Floats) -> None:
        self._done = actions
