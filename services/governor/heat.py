"""The speeds that temperatures allow, and what each device's temperature should be by what it drew.

Devices that came together share one controller: who comes later does not disturb what has been learnt. A device whose
kind nobody has described is left to its own protection. A learnt controller may run beside (beside.py).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from headrace.control.constants import GPUS, GpuKind
from headrace.control.thermal import CONTROLLERS, Observed, ThermalController
from headrace.control.thermal.context import Context
from headrace.control.thermal.model import FLOORED, INLET_C, START_C, HeatModel
from headrace.core.power.fleet import Fleet, Floats, Numbers, Readings, places
from services.governor.beside import Beside
from services.governor.roll import Told

# What the model of a kind is off by is learnt over minutes, from readings that are not far off; only a sudden
# difference shows a sensor that lies.
LEARN, NEAR_K = 0.01, 10.0
STARTING_S = 30  # seconds that a device's temperature takes to say where it stands


@dataclass(slots=True)
class _Cohort:
    keys: tuple[str, ...]
    kind: GpuKind
    controller: ThermalController
    model: HeatModel
    context: Context | None  # of the last minute, for a learnt controller
    at: Numbers = field(default_factory=lambda: np.empty(0, dtype=np.int64))  # in the fleet; -1: gone
    state: Floats = field(init=False)  # [device, 3] of the model without what sensors say
    off_k: Floats = field(init=False)
    seen_s: int = 0
    temp_c: Floats = field(init=False)  # the last that was readable
    power_w: Floats = field(init=False)

    def __post_init__(self) -> None:
        n = len(self.keys)
        self.state, self.off_k = np.tile([START_C, START_C, INLET_C], (n, 1)), np.zeros(n)
        self.temp_c, self.power_w = np.full(n, START_C), np.full(n, self.kind.context_w)

    def second(self, seen: Readings) -> tuple[Floats, Floats]:
        """Speeds, and the temperature that each should have; for all of `keys`."""
        temp, power = self._of(seen.temp_c), self._of(seen.power_w)
        self.temp_c = np.where(np.isfinite(temp), temp, self.temp_c)
        self.power_w = np.where(np.isfinite(power), power, self.power_w)
        speed, busy = self._of(seen.speed), self._of(seen.busy)
        observed = Observed(
            self.temp_c,
            self.power_w,
            np.nan_to_num(self._of(seen.waiting_s)),
            np.where(np.isfinite(busy), busy, self.power_w > 1.15 * self.kind.context_w),
            np.where(np.isfinite(speed), speed, 1.0),
        )
        if self.context is not None:
            self.context.add(observed)
        return self.controller.act(observed), self._expected(np.isfinite(temp))

    def _expected(self, readable: np.ndarray) -> Floats:
        self.state = self.state @ self.model.a.T + self.power_w[:, None] * self.model.b
        off = self.temp_c + FLOORED - self.state[:, 0]
        self.seen_s += 1
        if self.seen_s <= STARTING_S:
            self.off_k = off
            return np.full(len(off), np.nan)
        near = readable & (np.abs(off - self.off_k) < NEAR_K)
        self.off_k = self.off_k + np.where(near, LEARN * (off - self.off_k), 0.0)
        expected: Floats = self.state[:, 0] + self.off_k
        return expected

    def _of(self, values: Floats) -> Floats:
        return np.where(self.at >= 0, values[np.maximum(self.at, 0)], np.nan)


class Heat:
    def __init__(self, name: str, beside: Beside | None = None) -> None:
        """name: of a thermal controller."""
        self.beside = beside
        self._make: Callable[[GpuKind, int], ThermalController] = CONTROLLERS[name]
        self._cohorts: list[_Cohort] = []
        self._fleet: Fleet | None = None
        self.speed: Floats = np.empty(0)
        self.expected_c: Floats = np.empty(0)

    def follow(self, fleet: Fleet, told: list[Told], seen: Readings) -> None:
        """A second has passed; told: the devices in the fleet's order."""
        if fleet is not self._fleet:
            self._meet(fleet, told)
        self.speed, self.expected_c = np.ones(len(fleet.keys)), np.full(len(fleet.keys), np.nan)
        for cohort in self._cohorts:
            speed, expected = cohort.second(seen)
            there = cohort.at >= 0
            self.speed[cohort.at[there]], self.expected_c[cohort.at[there]] = speed[there], expected[there]
        if self.beside is not None:
            self._judge(self.beside)

    def _judge(self, beside: Beside) -> None:
        """What the learnt controller says to all cohorts, in one go."""
        contexts = [cohort.context for cohort in self._cohorts if cohort.context is not None]
        said = beside.think([context.steps() for context in contexts]) if beside.running else None
        if said is not None:
            at = np.concatenate([cohort.at for cohort in self._cohorts])
            there = at >= 0
            keys = [key for cohort in self._cohorts for key in cohort.keys]
            some = [keys[place] for place in np.flatnonzero(there).tolist()]
            self.speed[at[there]] = beside.judge(said[there], self.speed[at[there]], some)
        beside.passed()

    def fits(self, fleet: Fleet) -> bool:
        return fleet is self._fleet

    def _meet(self, fleet: Fleet, told: list[Told]) -> None:
        self._fleet = fleet
        known = {key for cohort in self._cohorts for key in cohort.keys}
        new: dict[str, list[str]] = {}
        for key, one in zip(fleet.keys, told, strict=True):
            if key not in known and one.reading.kind in GPUS:
                new.setdefault(one.reading.kind, []).append(key)
        for name, keys in new.items():
            kind = GPUS[name]
            context = Context(kind, len(keys)) if self.beside is not None else None
            self._cohorts.append(_Cohort(tuple(keys), kind, self._make(kind, len(keys)), HeatModel(kind), context))
        for cohort in self._cohorts:
            cohort.at = places(fleet.keys, cohort.keys)
        self._cohorts = [cohort for cohort in self._cohorts if (cohort.at >= 0).any()]
