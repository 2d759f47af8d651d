"""Proportional, integral and derivative action on the filtered temperature; it only ever slows down."""

import numpy as np

from headrace.control.constants import GpuKind
from headrace.control.thermal.base import Floats, Observed, bounded

TARGET_C = 80.0  # [I]
PROPORTIONAL, INTEGRAL, DERIVATIVE = 0.05, 0.004, 0.05  # per K, per K and s, s per K [I]
KEEP = 0.7  # of the filtered temperature, from second to second


class Pid:
    def __init__(self, kind: GpuKind, gpus: int) -> None:
        self._kind = kind
        self._integral = np.zeros(gpus)
        self._error = np.zeros(gpus)
        self._filtered: Floats | None = None

    def act(self, seen: Observed) -> Floats:
        before = seen.temp_c if self._filtered is None else self._filtered
        self._filtered = KEEP * before + (1.0 - KEEP) * seen.temp_c
        error = TARGET_C - self._filtered
        slope, self._error = error - self._error, error
        speed = 1.0 + PROPORTIONAL * np.minimum(error, 0.0) + self._integral + DERIVATIVE * np.minimum(slope, 0.0)
        # Never above 0: what was cool for an hour must not be paid back with heat.
        self._integral = np.clip(self._integral + INTEGRAL * error, self._kind.speed_least - 1.0, 0.0)
        return bounded(self._kind, speed)
