"""A step down at the limit, small steps up well below it: what a script around nvidia-smi does."""

import numpy as np

from headrace.control.constants import GpuKind
from headrace.control.thermal.base import LIMIT_C, Floats, Observed, bounded

DOWN, UP = 0.1, 0.02
CALM_C = LIMIT_C - 5.0


class Rule:
    def __init__(self, kind: GpuKind, gpus: int) -> None:
        self._kind = kind
        self._speed = np.ones(gpus)

    def act(self, seen: Observed) -> Floats:
        step = np.where(seen.temp_c >= LIMIT_C, -DOWN, np.where(seen.temp_c <= CALM_C, UP, 0.0))
        self._speed = bounded(self._kind, self._speed + step)
        return self._speed
