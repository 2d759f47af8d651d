"""What the row draws and how warm its GPUs are, from devices' readings that come once a second, each at its own time.

Power comes from energy counters: they have no noise, and whatever lies between two readings is in them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.rehearsal.watch import Reading

Floats = NDArray[np.float64]
WINDOW_S = 1.0  # of a mean power: devices report once a second


def watts(readings: Mapping[str, Sequence[Reading]], at_s: Floats, window_s: float = WINDOW_S) -> Floats:
    """Of all devices together, the mean of the window that ends at each time; nan where a device has not said it."""
    total = np.zeros(len(at_s))
    for rows in readings.values():
        total += _energy(rows, at_s) - _energy(rows, at_s - window_s)
    return total / window_s if readings else np.full(len(at_s), np.nan)


def _energy(rows: Sequence[Reading], at_s: Floats) -> Floats:
    """Joules, as a straight line between two readings."""
    times, energy = np.array([row.at_s for row in rows]), np.array([row.energy_j for row in rows])
    found: Floats = np.interp(at_s, times, energy, left=np.nan, right=np.nan)
    return found


def mean_w(readings: Mapping[str, Sequence[Reading]], from_s: float, to_s: float) -> float:
    """Watts between two times; nan where a device has not said it."""
    return float(watts(readings, np.array([to_s]), to_s - from_s)[0])


def hottest_c(readings: Mapping[str, Sequence[Reading]], at_s: Floats) -> Floats:
    """The warmest device's last word at each time; nan before the first."""
    found = np.full(len(at_s), np.nan)
    for rows in readings.values():
        times, temps = np.array([row.at_s for row in rows]), np.array([row.temp_c for row in rows])
        place = np.searchsorted(times, at_s, side="right") - 1
        found = np.fmax(found, np.where(place >= 0, temps[np.maximum(place, 0)], np.nan))
    return found


def told_until_s(readings: Mapping[str, Sequence[Reading]]) -> float:
    """Up to here every device has said all; nan: nobody has said anything."""
    return min((rows[-1].at_s for rows in readings.values() if rows), default=float("nan"))
