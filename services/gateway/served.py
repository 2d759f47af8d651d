"""How fast the cell answers while requests wait: what there is to go by where the engines' pace alone does not say it,
because processors, bus or hand-overs are what is short.
"""

from dataclasses import dataclass
from math import exp

OVER_S = 10.0  # time constant: a few answers of each slot, and soon enough after a change
COUNTED_LEAST = 5.0  # answers, older ones counting less; with fewer nothing is said

ANSWERED = ("stop", "length")  # of the reasons that a status counts; whoever was refused or left was not served


@dataclass(frozen=True, slots=True)
class Served:
    total: int = 0  # answers of this leadership, by the last status
    counted: float = 0.0  # of those that came while requests waited
    over_s: float = 0.0  # ... in so long

    @property
    def rps(self) -> float:
        """0: not known."""
        return self.counted / self.over_s if self.counted >= COUNTED_LEAST else 0.0

    @property
    def each_s(self) -> float:
        """By which one more in line makes the wait longer; 0: not known."""
        rps = self.rps
        return 1.0 / rps if rps else 0.0

    def then(self, total: int, passed_s: float, waited: bool) -> "Served":
        """By the next status. waited: requests did, at both of its ends; a mesh with room answers as it is asked."""
        kept = exp(-max(0.0, passed_s) / OVER_S)
        counted, over_s = (total - self.total, passed_s) if waited and passed_s > 0.0 else (0, 0.0)
        return Served(total, kept * self.counted + counted, kept * self.over_s + over_s)
