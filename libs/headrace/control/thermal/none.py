"""No control at all, until the GPU slows itself down: the floor for queues, and the ceiling for heat."""

import numpy as np

from headrace.control.constants import GpuKind
from headrace.control.thermal.base import Floats, Observed


class Uncontrolled:
    def __init__(self, kind: GpuKind, gpus: int) -> None:
        self._full = np.ones(gpus)

    def act(self, seen: Observed) -> Floats:
        return self._full
