"""H-infinity control: the regulator that is best against the worst heat that an adversary could add.

The game's discrete Riccati equation (Basar and Bernhard, H-infinity Optimal Control, chapter 3) for full information;
the state is the Kalman filter's, so certainty equivalence is assumed, not proven. gamma, what a unit of disturbance may
cost at most, is found by a sweep: the least for which a solution exists, and a margin.
"""

import numpy as np

from headrace.control.thermal.lqg import WATT_COST, Lqg
from headrace.control.thermal.model import HeatModel, Matrix

SWEEP = 40  # halvings of the interval
GAMMA_MOST = 1e3
MARGIN = 1.2  # above the least gamma, where gains would be without bound [I]
DOUBLINGS = 30
# Heat from nowhere, K a second: to the die and to the sink (its share is what warmer air brings) [I].
DISTURBED = np.array([[0.2, 0.0], [0.0, 0.2]])


class HInfinity(Lqg):
    @staticmethod
    def gain(model: HeatModel) -> Matrix:
        a, b = model.a[:2, :2], model.b[:2, None]
        low, high = 0.0, GAMMA_MOST
        assert _solved(a, b, high) is not None, "without a bound it is the linear-quadratic regulator"
        for _ in range(SWEEP):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if _solved(a, b, middle) is None else (low, middle)
        cost = _solved(a, b, MARGIN * high)
        assert cost is not None
        return _gain(a, b, cost, MARGIN * high)


def _solved(a: Matrix, b: Matrix, gamma: float) -> Matrix | None:
    """X = Q + A' X (I + (B R^-1 B' - gamma^-2 D D') X)^-1 A by doubling; None: none is stabilising at this gamma."""
    step, pushed, cost = a, _pushed(b, gamma), np.diag([1.0, 0.0])
    for _ in range(DOUBLINGS):
        try:
            moved = np.linalg.solve(np.eye(2) + pushed @ cost, np.hstack([step, pushed]))
        except np.linalg.LinAlgError:
            return None
        more = step.T @ cost @ moved[:, :2]
        step, pushed, cost = step @ moved[:, :2], pushed + step @ moved[:, 2:] @ step.T, cost + more
        if not np.isfinite(cost).all() or np.linalg.eigvalsh(0.5 * (cost + cost.T)).min() < 0.0:
            return None
        if np.linalg.eigvalsh(gamma**2 * np.eye(2) - DISTURBED.T @ cost @ DISTURBED).min() <= 0.0:
            return None  # the adversary gains without bound
        if np.abs(more).max() < 1e-12 * np.abs(cost).max():
            return 0.5 * (cost + cost.T)
    return None


def _pushed(b: Matrix, gamma: float) -> Matrix:
    """What the regulator's watts and the adversary's heat are worth together."""
    found: Matrix = b @ b.T / WATT_COST - DISTURBED @ DISTURBED.T / gamma**2
    return found


def _gain(a: Matrix, b: Matrix, cost: Matrix, gamma: float) -> Matrix:
    found: Matrix = (b.T @ cost @ np.linalg.solve(np.eye(2) + _pushed(b, gamma) @ cost, a) / WATT_COST).ravel()
    return found
