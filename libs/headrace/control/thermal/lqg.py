"""A Kalman filter and a linear-quadratic regulator around the state that holds the target (LQG)."""

import numpy as np
from scipy.linalg import solve_discrete_are

from headrace.control.constants import GpuKind
from headrace.control.thermal.base import TARGET_C, Floats, FullPower, Observed
from headrace.control.thermal.model import Estimator, HeatModel, Matrix

# What a kelvin of the die and a watt are held against each other with: 1 K^2 as much as (100 W)^2 [I].
WATT_COST = 1e-4


class Lqg:
    def __init__(self, kind: GpuKind, gpus: int) -> None:
        self._model = HeatModel(kind)
        self._estimator = Estimator(self._model, gpus)
        self._power = FullPower(kind, gpus)
        self._gain = self.gain(self._model)

    @staticmethod
    def gain(model: HeatModel) -> Matrix:
        """Watts for each kelvin that die and sink are off."""
        a, b = model.a[:2, :2], model.b[:2, None]  # the inlet cannot be moved
        cost = solve_discrete_are(a, b, np.diag([1.0, 0.0]), np.array([[WATT_COST]]))
        found: Matrix = np.linalg.solve(b.T @ cost @ b + WATT_COST, b.T @ cost @ a).ravel()
        return found

    def act(self, seen: Observed) -> Floats:
        state = self._estimator.follow(seen)
        self._power.learn(seen)
        rest_w = (TARGET_C - state[:, 2]) / self._model.resistance
        off = np.stack([state[:, 0] - TARGET_C, state[:, 1] - (TARGET_C - rest_w * self._model.die_sink)], axis=1)
        return self._power.speed(rest_w - off @ self._gain)
