"""Model-predictive control: the most power over half a minute that never passes the target on the way.

A linear program for each GPU that could pass it: the powers of ten blocks of three seconds, each at most what the GPU
can draw; the die at every block's end within the target. The first block is applied, a second later all is solved anew.
"""

import numpy as np
from scipy.optimize import linprog

from headrace.control.constants import GpuKind
from headrace.control.thermal.base import TARGET_C, Floats, FullPower, Observed
from headrace.control.thermal.model import Estimator, HeatModel

BLOCKS, BLOCK_S = 10, 3
SOONER = 0.98  # a watt in the next block counts so much of one in this: of equal plans the one that works first


class Mpc:
    def __init__(self, kind: GpuKind, gpus: int) -> None:
        self._kind = kind
        model = HeatModel(kind)
        self._estimator = Estimator(model, gpus)
        self._power = FullPower(kind, gpus)
        a, b = model.ahead(BLOCK_S)
        powers = [np.eye(3)]
        for _ in range(BLOCKS):
            powers.append(powers[-1] @ a)
        self._free = np.array([power[0] for power in powers[1:]])  # of the die, without power
        self._forced = np.zeros((BLOCKS, BLOCKS))
        for end in range(BLOCKS):
            for block in range(end + 1):
                self._forced[end, block] = (powers[end - block] @ b)[0]
        self._worth = -(SOONER ** np.arange(BLOCKS))

    def act(self, seen: Observed) -> Floats:
        state = self._estimator.follow(seen)
        self._power.learn(seen)
        full_w = self._power.watts
        room = TARGET_C - state @ self._free.T  # [gpu, block]
        budget_w = full_w.copy()
        for gpu in np.flatnonzero((full_w[:, None] * self._forced.sum(axis=1) > room).any(axis=1)).tolist():
            budget_w[gpu] = self._first_w(room[gpu], float(full_w[gpu]))
        return self._power.speed(budget_w)

    def _first_w(self, room: Floats, full_w: float) -> float:
        least_w = self._kind.context_w
        solved = linprog(self._worth, self._forced, room, bounds=(least_w, max(full_w, least_w)), method="highs")
        if solved.status != 0:
            return least_w  # too hot whatever is done: as cool as can be
        return float(solved.x[0])
