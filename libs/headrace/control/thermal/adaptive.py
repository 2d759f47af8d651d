"""The Kalman budget of a sink whose cooling is found out while it runs: failed fans, dust, a liquid loop.

A bank of Kalman filters (Magill 1965), one for each of some sink resistances; each is believed as far as it has lately
predicted what the sensor said. Their inlets hardly wander: what moves with the power must be the resistance. The budget
is of filters with the same resistances whose inlets follow quickly: what the bank has still to learn must not wait.
"""

from dataclasses import replace

import numpy as np

from headrace.control.constants import GpuKind
from headrace.control.thermal.base import TARGET_C, Floats, FullPower, Observed
from headrace.control.thermal.kalman_budget import HORIZON_S, QUICK
from headrace.control.thermal.model import Estimator, HeatModel

FACTORS = (0.4, 0.6, 0.8, 1.0, 1.25, 1.6, 2.0, 2.5, 3.2)  # of the kind's resistance from sink to air
# Variances of a second: die, sink, inlet; and how much of the evidence is kept from second to second. Tuned as QUICK.
FINDS, FOLLOWS = (0.05, 0.02, 0.01), QUICK
REMEMBERED = 0.99
LEAST = -20.0  # of the logarithm of a belief beside the best: a model must be able to come back


class Adaptive:
    def __init__(self, kind: GpuKind, gpus: int) -> None:
        models = [HeatModel(replace(kind, sink_air_k_per_w=kind.sink_air_k_per_w * each)) for each in FACTORS]
        self._finding = [Estimator(model, gpus, FINDS) for model in models]
        self._following = [Estimator(model, gpus, FOLLOWS) for model in models]
        self._ahead = [model.ahead(HORIZON_S) for model in models]
        self._power = FullPower(kind, gpus)
        nominal = -np.abs(np.log(FACTORS))  # what is believed at first
        self._evidence = np.tile(nominal[:, None], (1, gpus))

    def act(self, seen: Observed) -> Floats:
        self._power.learn(seen)
        for at, one in enumerate(self._finding):
            one.follow(seen)
            likelihood = -0.5 * (one.off**2 / one.variance + np.log(one.variance))
            self._evidence[at] = REMEMBERED * self._evidence[at] + likelihood
        self._evidence = np.maximum(self._evidence - self._evidence.max(axis=0), LEAST)
        states = [one.follow(seen) for one in self._following]
        budgets = [(TARGET_C - state @ a[0]) / b[0] for state, (a, b) in zip(states, self._ahead, strict=True)]
        return self._power.speed((self.belief * np.array(budgets)).sum(axis=0))

    @property
    def belief(self) -> Floats:
        """[model, gpu], sums to 1."""
        weights = np.exp(self._evidence)
        found: Floats = weights / weights.sum(axis=0)
        return found

    @property
    def factor(self) -> Floats:
        """[gpu]: the resistance that is believed in, beside the kind's."""
        found: Floats = np.exp(np.log(FACTORS) @ self.belief)
        return found
