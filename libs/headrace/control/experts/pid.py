"""A PID on the observations, its gains found by a search over them (cross-entropy method, Rubinstein 1999).

u = -(P y + I sum(y) dt + D dy/dt): full matrices where they are small; for the fields one number each times how an
actuator moves the sensors. Scored by the mean cost of episodes whose seeds nobody is judged on.
"""

import numpy as np

from headrace.control.tasks.base import Floats
from headrace.control.tasks.linear import LinearTask
from headrace.control.tasks.play import play

STEP_S = 0.1
CANDIDATES, KEPT, ROUNDS = 48, 8, 25
SEEDS = tuple(range(95_001, 95_013))
_LARGE = 12  # outputs times actions; beyond, one number times how each actuator moves each sensor
_LATER = 3  # so many steps later


class Pid:
    def __init__(self, task: LinearTask) -> None:
        self._maps = _maps(task)
        self.gains = self._search(task)

    def begin(self, envs: int) -> "Loop":
        return Loop(np.repeat(self._matrices(self.gains[None]), envs, axis=0))

    def _matrices(self, gains: Floats) -> Floats:
        """[candidate, 3 x maps] -> [candidate, 3, m, p]."""
        shaped = gains.reshape(len(gains), 3, len(self._maps))
        found: Floats = np.einsum("ckj,jmp->ckmp", shaped, self._maps)
        return found

    def _search(self, task: LinearTask) -> Floats:
        rng = np.random.default_rng(0)
        mean = np.zeros(3 * len(self._maps))
        spread = np.repeat([1.0, 0.3, 0.1], len(self._maps))
        seeds = SEEDS * CANDIDATES
        for _ in range(ROUNDS):
            tried = mean + spread * rng.standard_normal((CANDIDATES, len(mean)))
            tried[0] = mean
            loop = Loop(np.repeat(self._matrices(tried), len(SEEDS), axis=0))
            cost = play(task, loop, seeds).total.reshape(CANDIDATES, len(SEEDS)).mean(axis=1)
            best = tried[np.argsort(cost)[:KEPT]]
            mean, spread = best.mean(axis=0), 0.8 * best.std(axis=0) + 0.2 * spread
        found: Floats = best[0]
        return found


def _maps(task: LinearTask) -> Floats:
    """[map, m, p]: what a gain multiplies."""
    m, p = task.actions, task.observations
    if m * p <= _LARGE:
        return np.eye(m * p).reshape(m * p, m, p)
    model = task.model
    moved = model.c @ np.linalg.matrix_power(model.a, _LATER) @ model.b
    found: Floats = (moved / np.abs(moved).max()).T[None]
    return found


class Loop:
    """gains [env, 3, m, p]."""

    def __init__(self, gains: Floats) -> None:
        self._gains = gains
        self._sum = np.zeros((len(gains), gains.shape[-1]))
        self._before: Floats | None = None

    def act(self, seen: Floats) -> Floats:
        self._sum += STEP_S * seen
        slope = np.zeros_like(seen) if self._before is None else (seen - self._before) / STEP_S
        self._before = seen
        parts = np.stack([seen, self._sum, slope], axis=1)
        found: Floats = -np.einsum("ekmp,ekp->em", self._gains, parts)
        return found

    def done(self, actions: Floats, costs: Floats) -> None:
        pass
