"""A Kalman filter, and the constant power that would bring the die to its target in 20 s; the quick one is the default.

The budget looks as far ahead as the sink is slow, so it acts before the sink is hot; and it is a power, so what cools a
GPU by itself (a light load) costs no speed.
"""

from headrace.control.constants import GpuKind
from headrace.control.thermal.base import TARGET_C, Floats, FullPower, Observed
from headrace.control.thermal.model import NOISE, Estimator, HeatModel

HORIZON_S = 20  # [I] below the sink's half a minute
# As the model's, but an inlet that jumps (a fan fails) is followed at once. Tuned on plants 101 to 120 of each family
# of headrace.control.randomised.
QUICK = (*NOISE[:2], 0.3)


class KalmanBudget:
    def __init__(self, kind: GpuKind, gpus: int, noise: tuple[float, float, float] = NOISE) -> None:
        model = HeatModel(kind)
        self._estimator = Estimator(model, gpus, noise)
        self._power = FullPower(kind, gpus)
        self._a, self._b = model.ahead(HORIZON_S)

    def act(self, seen: Observed) -> Floats:
        state = self._estimator.follow(seen)
        self._power.learn(seen)
        return self._power.speed(self.budget_w(state))

    def budget_w(self, state: Floats) -> Floats:
        """Watts that, drawn for the whole horizon, end at the target."""
        found: Floats = (TARGET_C - state @ self._a[0]) / self._b[0]
        return found


class QuickKalman(KalmanBudget):
    def __init__(self, kind: GpuKind, gpus: int) -> None:
        super().__init__(kind, gpus, QUICK)
