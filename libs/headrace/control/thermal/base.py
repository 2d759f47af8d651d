"""The interface of thermal controllers: once a second from what sensors say to a speed for each GPU.

All arrays are of one length, a GPU each: one controller object governs as many as it is made for.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.control.constants import GpuKind

Floats = NDArray[np.float64]
STEP_S = 1.0  # between two calls
LIMIT_C = 82.0  # [I] a degree below the GPU's own soft limit
TARGET_C = 80.5  # [I] what a controller with a model steers to: noise and a floored sensor lie between


@dataclass(frozen=True, slots=True)
class Observed:
    temp_c: Floats  # whole degrees
    power_w: Floats  # mean of the last second
    queue: Floats  # seconds of work at full speed that wait
    busy: Floats  # share of the last second, 0 to 1
    speed: Floats  # that was set for it


class ThermalController(Protocol):
    def __init__(self, kind: GpuKind, gpus: int) -> None: ...

    def act(self, seen: Observed) -> Floats:
        """Speed for the next second, from the kind's least to 1."""
        ...


def bounded(kind: GpuKind, speed: Floats) -> Floats:
    found: Floats = np.clip(speed, kind.speed_least, 1.0)
    return found


class FullPower:
    """What a GPU would draw at full speed and fully busy: learnt from what it does draw."""

    KEEP = 0.9  # of the estimate, from second to second
    BUSY_LEAST = 0.2  # below that a second says too little

    def __init__(self, kind: GpuKind, gpus: int) -> None:
        self._kind = kind
        self.dynamic_w = np.full(gpus, kind.prefill_w - kind.context_w)

    def learn(self, seen: Observed) -> None:
        shown = np.maximum(seen.busy, self.BUSY_LEAST) * seen.speed**self._kind.speed_exponent
        told = np.maximum(seen.power_w - self._kind.context_w, 1.0) / np.maximum(shown, 1e-3)
        keep = np.where(seen.busy >= self.BUSY_LEAST, self.KEEP, 1.0)
        self.dynamic_w = keep * self.dynamic_w + (1.0 - keep) * told

    @property
    def watts(self) -> Floats:
        found: Floats = self._kind.context_w + self.dynamic_w
        return found

    def speed(self, budget_w: Floats) -> Floats:
        """The speed at which a busy GPU draws so much."""
        left = np.maximum(budget_w - self._kind.context_w, 1.0) / self.dynamic_w
        return bounded(self._kind, left ** (1.0 / self._kind.speed_exponent))
