"""Simpler ways to keep within power and heat, stated simply, not their code: none reloads, all have our placement.

Static caps, as Dynamo's planner is given; caps by the row's power alone, as POLCA's; a frequency for each phase by each
instance's slack, as VoltanaLLM's.
"""

from dataclasses import dataclass, field
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headrace.control.constants import GpuKind
from headrace.core.power import configuration

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
Rival = Literal["", "static", "row", "slack"]
SPEEDS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)
STATIC_SPEED = 0.75  # [I] down to which decode loses nothing
SLACK = 0.85  # [I] busy share up to which promises are kept, for those who slow down by slack


@dataclass(slots=True)
class Rivals:
    """Clocks of the two phases of each serving instance, [instance]."""

    rival: Rival
    kind: GpuKind
    share: Floats  # of a busy instance's time that is compute-bound
    prefill: Floats = field(init=False)
    decode: Floats = field(init=False)
    _step: Numbers = field(init=False)  # into SPEEDS

    def __post_init__(self) -> None:
        begin = STATIC_SPEED if self.rival == "static" else 1.0
        self.prefill, self.decode = np.full(len(self.share), begin), np.full(len(self.share), begin)
        self._step = np.zeros(len(self.share), dtype=np.int64)

    def choose(self, wanted: Floats, risk: Floats) -> None:
        """wanted: work of each instance; risk: its row's power, as a share of the limit."""
        if self.rival == "row":
            step = self._step + (risk > configuration.HIGH) - (risk < configuration.CALM)
            self._step = np.clip(step, 0, len(SPEEDS) - 1)
            self.prefill = self.decode = np.array(SPEEDS)[self._step]
        elif self.rival == "slack":
            for share in np.unique(self.share):
                own = np.flatnonzero(self.share == share)
                clocks, capacity = self._pairs(float(share))
                able = capacity[None, :] * SLACK >= wanted[own, None]
                chosen = np.where(able.any(axis=1), np.argmax(able, axis=1), int(np.argmax(capacity)))
                self.prefill[own], self.decode[own] = clocks[chosen].T

    def _pairs(self, share: float) -> tuple[Floats, Floats]:
        """[pair, phase] and their capacities, those first that draw least for the same work."""
        clocks = np.array(list(product(SPEEDS, SPEEDS)))
        capacity, dynamic = self._of(share, clocks[:, 0], clocks[:, 1])
        order = np.argsort(dynamic / capacity, kind="stable")
        return clocks[order], capacity[order]

    def running(self) -> tuple[Floats, Floats]:
        """Capacity and dynamic power at full load, beside those at full speed."""
        return self._of(self.share, self.prefill, self.decode)

    def _of(self, share: float | Floats, prefill: Floats, decode: Floats) -> tuple[Floats, Floats]:
        kind, exponent = self.kind, self.kind.speed_exponent
        times = share / prefill, (1.0 - share) / np.minimum(1.0, decode / kind.decode_free_speed)
        watts = kind.prefill_w - kind.context_w, kind.decode_w - kind.context_w
        took = times[0] + times[1]
        drawn = (times[0] * watts[0] * prefill**exponent + times[1] * watts[1] * decode**exponent) / took
        return 1.0 / took, drawn / (share * watts[0] + (1.0 - share) * watts[1])
