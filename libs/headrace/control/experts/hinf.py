"""H2/H-infinity: the gain that does best against an adversary who chooses the noise (Basar and Bernhard 1995).

The Riccati recursion of the game. The adversary pays gamma^2 for his noise's square; gamma is 1.5 times the least for
which the game has a value, found by bisection. The state is the Kalman predictor's: certainty equivalence, not the
central output-feedback controller. gamma = infinity is H2, which is the LQG.
"""

import numpy as np

from headrace.control.experts.kalman import Estimator, kalman
from headrace.control.experts.lqg import Regulated
from headrace.control.tasks.base import Floats
from headrace.control.tasks.linear import LinearTask

ABOVE = 1.5  # times the least gamma [I]
_HALVINGS = 15


class HInfinity:
    def __init__(self, task: LinearTask) -> None:
        self._model, self._estimator = task.model, kalman(task.model, task.steps)
        self.gamma = ABOVE * least_gamma(task)
        gains = game(task, self.gamma)
        assert gains is not None
        self.gains: Floats = gains

    def begin(self, envs: int) -> Regulated:
        return Regulated(Estimator(self._model, self._estimator, envs), -self.gains)


def game(task: LinearTask, gamma: float) -> Floats | None:
    """Gains [step, m, n] of who controls; None where the adversary can do any harm he likes."""
    model, m = task.model, task.actions
    # A field without noise of its own: the adversary pushes at the actuators.
    harm = model.g if model.g.any() else model.b
    both = np.hstack([model.b, harm])
    stage = np.zeros((both.shape[1], both.shape[1]))
    stage[:m, :m], stage[m:, m:] = model.r, -(gamma**2) * np.eye(harm.shape[1])
    cross = np.hstack([model.s, np.zeros_like(harm)])
    value, gains = task.rest, []
    for _ in range(task.steps):
        if np.linalg.eigvalsh(stage[m:, m:] + harm.T @ value @ harm).max() >= 0.0:
            return None
        curvature = stage + both.T @ value @ both
        gain = np.linalg.solve(curvature, both.T @ value @ model.a + cross.T)
        value = model.q + model.a.T @ value @ model.a - gain.T @ curvature @ gain
        value = 0.5 * (value + value.T)
        gains.append(gain[:m])
    return np.array(gains[::-1])


def least_gamma(task: LinearTask) -> float:
    low, high = 0.0, 1.0
    while game(task, high) is None:
        low, high = high, 2.0 * high
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if game(task, middle) is None else (low, middle)
    return high
