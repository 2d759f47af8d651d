"""What a tenant will draw at each hour of the week: learnt from the last weeks, in bounded memory.

A template says mean + z deviations of the hour; 2.33 is the 99th percentile of a bell curve, what TAPAS takes for
opaque tenants, 2 for a share of an endpoint. Who has no history yet is given the template of its customer or endpoint,
and without that its worst case.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
HOURS = 168
WEEK_S = HOURS * 3_600.0
OPAQUE_Z, ENDPOINT_Z = 2.33, 2.0


def hour_of_week(at_s: float) -> int:
    """at_s: seconds since some Monday, 0:00."""
    return int(at_s % WEEK_S // 3_600.0)


class Templates:
    """Of so many tenants, [tenant, hour]."""

    def __init__(self, tenants: int, worst: float, z: float = OPAQUE_Z) -> None:
        self._worst = worst
        self._z = z
        self._weight = np.zeros((tenants, HOURS))
        self._mean = np.zeros((tenants, HOURS))
        self._square = np.zeros((tenants, HOURS))  # weighted sum of squared deviations

    def learn(self, at_s: float, values: Floats) -> None:
        """values: of each tenant, nan for one that was not there."""
        hour = hour_of_week(at_s)
        there = np.isfinite(values)
        weight = self._weight[:, hour] + there
        off = np.where(there, values, 0.0) - self._mean[:, hour]
        step = np.where(there, off / np.maximum(weight, 1.0), 0.0)
        self._mean[:, hour] += step
        self._square[:, hour] += np.where(there, off * (off - step), 0.0)
        self._weight[:, hour] = weight

    def fade(self) -> None:
        """At the end of a week: what was learnt before counts half."""
        self._weight *= 0.5
        self._square *= 0.5

    def of(self, tenant: int, like: int | None = None) -> Floats:
        """By hour. like: whose template stands in for hours without history."""
        own = self._said(tenant)
        if like is not None:
            own = np.where(np.isnan(own), self._said(like), own)
        return np.where(np.isnan(own), self._worst, own)

    def _said(self, tenant: int) -> Floats:
        weight = self._weight[tenant]
        deviation = np.sqrt(self._square[tenant] / np.maximum(weight, 1.0))
        found = np.minimum(self._mean[tenant] + self._z * deviation, self._worst)
        return np.where(weight > 0, found, np.nan)
