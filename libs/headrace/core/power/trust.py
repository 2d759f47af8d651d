"""Which readings may be believed: stale, missing, stuck, absurd and lying sensors are told from good ones.

A reading that is not believed never makes a device faster: whoever decides takes the safe cap for it, until the sensor
has been believable for a while. Deterministic, arrays over devices.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Doubt = Literal["", "stale", "not a number", "absurd", "stuck", "implausible"]
WORK_CHANGES_W = 20.0  # [I] beyond a sensor's noise: a power that stays as it is over this is stuck
DOUBTS: tuple[Doubt, ...] = ("", "stale", "not a number", "absurd", "stuck", "implausible")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a device's readings can be at all, and how they move."""

    temp_c: tuple[float, float] = (5.0, 110.0)
    power_w: tuple[float, float] = (0.0, 1_500.0)
    stale_s: float = 3.0  # three readings missed
    stuck_readings: int = 30  # power to the tenth of a watt, and temperature, the same so often while work changes
    # A die cannot be this much off what its power and inlet have made it, whatever its sink: a sensor that lies [I].
    off_k: float = 15.0
    good_readings: int = 10  # in a row, until a device is believed again


class Trust:
    def __init__(self, devices: int, bounds: Bounds) -> None:
        self._bounds = bounds
        self._temp = np.full(devices, np.nan)
        self._power = np.full(devices, np.nan)
        self._same = np.zeros(devices, dtype=np.int64)
        self._work = np.full(devices, np.nan)
        self._good = np.full(devices, bounds.good_readings, dtype=np.int64)
        self.doubt: NDArray[np.int8] = np.zeros(devices, dtype=np.int8)  # an index into DOUBTS: why, lately

    def look(
        self,
        temp_c: Floats,
        power_w: Floats,
        age_s: Floats,
        expected_c: Floats | None = None,
        work_w: Floats | None = None,
    ) -> Mask:
        """Which devices may be believed now. expected_c: of a model, nan where there is none. work_w: what the work
        should draw, where that is known: a reading is stuck only if this has changed meanwhile."""
        bounds = self._bounds
        same = (temp_c == self._temp) & (power_w == self._power)
        self._same = np.where(same, self._same + self._changed(work_w), 0)
        self._temp, self._power = temp_c.copy(), power_w.copy()
        found = np.zeros(len(temp_c), dtype=np.int8)
        if expected_c is not None:
            with np.errstate(invalid="ignore"):
                found[np.abs(temp_c - expected_c) > bounds.off_k] = DOUBTS.index("implausible")
        found[self._same >= bounds.stuck_readings] = DOUBTS.index("stuck")
        with np.errstate(invalid="ignore"):
            absurd = ~_within(temp_c, bounds.temp_c) | ~_within(power_w, bounds.power_w)
        found[absurd] = DOUBTS.index("absurd")
        found[~(np.isfinite(temp_c) & np.isfinite(power_w))] = DOUBTS.index("not a number")
        found[age_s > bounds.stale_s] = DOUBTS.index("stale")
        self._good = np.where(found == 0, np.minimum(self._good + 1, bounds.good_readings), 0)
        lately = np.where(self._good < bounds.good_readings, self.doubt, 0)
        self.doubt = np.where(found > 0, found, lately).astype(np.int8)
        believed: Mask = self.doubt == 0
        return believed

    def _changed(self, work_w: Floats | None) -> NDArray[np.int64]:
        if work_w is None:
            return np.ones(len(self._work), dtype=np.int64)
        with np.errstate(invalid="ignore"):
            changed = np.abs(work_w - self._work) > WORK_CHANGES_W
        self._work = np.where(np.isfinite(work_w), work_w, self._work)
        found: NDArray[np.int64] = changed.astype(np.int64)
        return found

    def move(self, at: NDArray[np.int64]) -> None:
        """Devices have come or gone: at[i] is where the new i-th was, -1 if it is new."""
        self._temp, self._power, self._work = (_moved(v, at, np.nan) for v in (self._temp, self._power, self._work))
        self._same, self.doubt = _moved(self._same, at, 0), _moved(self.doubt, at, 0)
        self._good = _moved(self._good, at, self._bounds.good_readings)


def _moved(values: NDArray[Any], at: NDArray[np.int64], fill: float) -> NDArray[Any]:
    if not len(values):
        return np.full(len(at), fill, dtype=values.dtype)
    return np.where(at >= 0, values[np.maximum(at, 0)], fill).astype(values.dtype)


def _within(values: Floats, limits: tuple[float, float]) -> Mask:
    found: Mask = (values >= limits[0]) & (values <= limits[1])
    return found
