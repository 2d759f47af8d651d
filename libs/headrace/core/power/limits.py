"""What each row and aisle may take now: an operator's budget, else the row's own, less what an emergency has taken.

A row that nobody has given a budget was built for its devices at their own limits, and an aisle for their air: that is
what an emergency takes its share of.
"""

from dataclasses import dataclass, field

import numpy as np

from headrace.core.power.emergency import Emergency
from headrace.core.power.fleet import Fleet, Floats, Row
from headrace.core.power.sharing import Limits


@dataclass(slots=True)
class Budgets:
    said: dict[str, float] = field(default_factory=dict)  # of an operator, by row; 0: none, whatever the row's own

    def set(self, row: str, watts: float) -> float:
        """What was said before."""
        before = self.said.get(row, 0.0)
        self.said[row] = watts
        return before

    def of(self, row: Row) -> float:
        """Watts; 0: none."""
        return self.said.get(row.name, row.budget_w)

    def limits(self, fleet: Fleet, counts: Floats, emergency: Emergency) -> Limits:
        power = np.array([self.of(row) or np.inf for row in fleet.rows], dtype=np.float64)
        air = _given(fleet)
        if "ups" in emergency.events:
            power = np.where(np.isfinite(power), power, fleet.by_row(fleet.most_w * counts))
        if "ahu" in emergency.events:
            air = np.where(np.isfinite(air), air, _of_aisle(fleet, _built_air(fleet, counts)))
            air = np.where(air > 0.0, air, np.inf)  # nobody knows what air its devices need
        return Limits(*emergency.limits(power, air))

    def air(self, fleet: Fleet, counts: Floats, emergency: Emergency) -> Floats:
        """[row]: of its aisle's limit, in proportion to what each row was given, or needs at most."""
        aisle = self.limits(fleet, counts, emergency).aisle_m3s[fleet.aisle]
        own = np.array([row.air_m3s for row in fleet.rows], dtype=np.float64)
        own = np.where(own > 0.0, own, _built_air(fleet, counts))
        whole = np.maximum(_of_aisle(fleet, own)[fleet.aisle], 1e-12)
        found: Floats = np.where(
            np.isfinite(aisle) & (own > 0.0), np.nan_to_num(aisle, posinf=0.0) * own / whole, np.inf
        )
        return found


def _given(fleet: Fleet) -> Floats:
    """[aisle]: what its rows are given; infinite if one of them has no limit."""
    air = np.array([row.air_m3s or np.inf for row in fleet.rows], dtype=np.float64)
    return _of_aisle(fleet, air)


def _built_air(fleet: Fleet, counts: Floats) -> Floats:
    return fleet.by_row((fleet.air_base + fleet.air_per_w * fleet.most_w) * counts)


def _of_aisle(fleet: Fleet, of_row: Floats) -> Floats:
    found: Floats = np.bincount(fleet.aisle, of_row, len(fleet.aisles)).astype(np.float64)
    return found
