"""A GPU's heat as a linear model for estimators: die, sink, and the inlet as a state that wanders.

The inlet stands for all that is not known: warmer air, less of it, a sink that is worse than its kind's. A Kalman
filter finds it from temperatures alone, so that a model with nominal constants still predicts.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm, solve_discrete_are

from headrace.control.constants import GpuKind
from headrace.control.thermal.base import STEP_S, Floats, Observed

Matrix = NDArray[np.float64]
START_C, INLET_C = 45.0, 27.0
FLOORED = 0.5  # of a degree: what a sensor that rounds down leaves out on average
# Variances of a second, K^2: of the die (power is measured with noise), the sink, the inlet; and of a reading [I].
NOISE, READING = (0.05, 0.02, 0.05), 0.5


class HeatModel:
    """x' = A x + B watts, one second on; the die is x[0]."""

    def __init__(self, kind: GpuKind) -> None:
        r12, r2 = kind.die_sink_k_per_w, kind.sink_air_k_per_w
        c1, c2 = kind.die_j_per_k, kind.sink_j_per_k
        rates = np.array(
            [
                [-1 / (r12 * c1), 1 / (r12 * c1), 0.0, 1 / c1],
                [1 / (r12 * c2), -1 / (r12 * c2) - 1 / (r2 * c2), 1 / (r2 * c2), 0.0],
                [0.0, 0.0, 0.0, 0.0],
                [0.0, 0.0, 0.0, 0.0],
            ]
        )
        whole = expm(rates * STEP_S)
        self.a: Matrix = whole[:3, :3]
        self.b: Matrix = whole[:3, 3]
        self.resistance = r12 + r2
        self.die_sink = r12

    def ahead(self, steps: int) -> tuple[Matrix, Matrix]:
        """The same, so many seconds on, with constant power."""
        a, b = np.eye(3), np.zeros(3)
        for _ in range(steps):
            b = b + a @ self.b
            a = a @ self.a
        return a, b


class Estimator:
    """A steady-state Kalman filter for each of some GPUs: states [gpu, 3]."""

    def __init__(self, model: HeatModel, gpus: int, noise: tuple[float, float, float] = NOISE) -> None:
        self._model = model
        seen = np.array([[1.0, 0.0, 0.0]])
        cov = solve_discrete_are(model.a.T, seen.T, np.diag(noise), np.array([[READING]]))
        self.variance = float((seen @ cov @ seen.T).item() + READING)  # of a reading beside what was predicted
        self._gain: Matrix = (cov @ seen.T / self.variance).ravel()
        self.x: Matrix = np.tile([START_C, START_C, INLET_C], (gpus, 1))
        self.off: Matrix = np.zeros(gpus)  # the last reading, beside what was predicted

    def follow(self, seen: Observed) -> Floats:
        """The second that has passed, with what it drew; then what the sensor says. The states now."""
        predicted = self.x @ self._model.a.T + seen.power_w[:, None] * self._model.b
        self.off = seen.temp_c + FLOORED - predicted[:, 0]
        self.x = predicted + self.off[:, None] * self._gain
        return self.x
