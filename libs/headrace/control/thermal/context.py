"""What a learnt controller looks at: the last minute of each GPU, as twenty steps of three seconds.

A sink takes half a minute to follow, so a context of seconds would not show it; three seconds' means are less noisy
than a second's reading. Training and serving use these lines alike.
"""

import numpy as np
from numpy.typing import NDArray

from headrace.control.constants import GpuKind
from headrace.control.thermal.base import Observed

STEPS, STEP_SECONDS = 20, 3
SECONDS = STEPS * STEP_SECONDS
# Power is the share of what lies between a loaded, idle GPU and prefill at full speed: one network for every kind.
FEATURES = ("temp_c", "power", "busy", "queue", "speed")
SPEED = FEATURES.index("speed")
Singles = NDArray[np.float32]


def features(kind: GpuKind, seen: Observed) -> Singles:
    """[gpu, feature]."""
    power = (seen.power_w - kind.context_w) / (kind.prefill_w - kind.context_w)
    columns = (seen.temp_c, power, seen.busy, np.log1p(np.maximum(seen.queue, 0.0)), seen.speed)
    return np.stack(columns, axis=1).astype(np.float32)


def steps(seconds: Singles) -> tuple[Singles, Singles]:
    """Observations [row, STEPS, feature] and actions [row, STEPS, 1] of seconds [row, SECONDS, feature].

    A step's action is the speed of the second that follows it; of the last one it is to be found, and 0 here."""
    rows = len(seconds)
    observations = seconds.reshape(rows, STEPS, STEP_SECONDS, len(FEATURES)).mean(axis=2)
    actions = np.zeros((rows, STEPS, 1), np.float32)
    actions[:, :-1, 0] = seconds[:, STEP_SECONDS::STEP_SECONDS, SPEED]
    return observations, actions


class Context:
    """The last SECONDS of some GPUs, and nothing that is older."""

    def __init__(self, kind: GpuKind, gpus: int) -> None:
        self._kind = kind
        self._seconds = np.zeros((gpus, SECONDS, len(FEATURES)), np.float32)
        self._empty = True

    def add(self, seen: Observed) -> None:
        now = features(self._kind, seen)
        if self._empty:  # as if it had always been so: training pads its beginnings alike
            self._seconds[:] = now[:, None]
            self._empty = False
        self._seconds[:, :-1] = self._seconds[:, 1:]
        self._seconds[:, -1] = now

    def steps(self) -> tuple[Singles, Singles]:
        return steps(self._seconds)

    @property
    def nbytes(self) -> int:
        return self._seconds.nbytes
