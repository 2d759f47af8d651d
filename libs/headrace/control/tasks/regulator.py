"""Linear-quadratic gains of an episode, backwards from what its end is charged; the cost for who knows the state."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_discrete_are

from headrace.control.tasks.base import Floats
from headrace.control.tasks.linear import Model


@dataclass(frozen=True, slots=True)
class Regulator:
    """u = -gains[t] x; values[t]: of the cost to go x'Px from step t on; curvatures[t]: what a deviation of u costs."""

    gains: Floats  # [step, m, n]
    values: Floats  # [step + 1, n, n]
    curvatures: Floats  # [step, m, m]


def regulator(model: Model, rest: Floats, steps: int) -> Regulator:
    a, b = model.a, model.b
    value = rest
    gains, values, curvatures = [], [value], []
    for _ in range(steps):
        curvature = model.r + b.T @ value @ b
        gain = np.linalg.solve(curvature, b.T @ value @ a + model.s.T)
        value = model.q + a.T @ value @ a - gain.T @ curvature @ gain
        value = 0.5 * (value + value.T)
        gains.append(gain)
        values.append(value)
        curvatures.append(curvature)
    return Regulator(np.array(gains[::-1]), np.array(values[::-1]), np.array(curvatures[::-1]))


def home(model: Model) -> Floats:
    """What bringing a state home costs at least, ever after: the stabilising solution of the Riccati equation.

    Charged at an episode's end the regulator is controlgym's stationary one. Nothing charged, the cost of he1 and he4
    could be made 0 by cancelling it with the actions, which leaves an unstable rest for later.
    """
    found: Floats = solve_discrete_are(model.a, model.b, model.q, model.r, s=model.s)
    return found


def cost_of_known_state(model: Model, found: Regulator) -> float:
    """Expected cost of an episode for who is told the state: nobody's is lower."""
    first = model.cov + np.outer(model.mean, model.mean)
    noise = model.noise_var * model.g @ model.g.T
    return float(np.sum(found.values[0] * first) + np.sum(found.values[1:].sum(axis=0) * noise))
