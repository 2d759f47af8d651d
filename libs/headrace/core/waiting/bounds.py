"""Upper bounds of waits that hold as often as they say, learnt from how often they have held.

The estimate's variance knows of lengths and paces, not of plans that change and of whoever comes. So its bound is
taken times a factor, one for each octave of requests ahead: a wait beyond the bound raises it, one within lowers it,
and where both balance the bound holds at its level, whatever waits are distributed like. Online quantile tracking:
adaptive conformal inference (Gibbs and Candes, NeurIPS 2021, equation 2), here on the logarithm of the factor.
"""

import math
from statistics import NormalDist

from headrace.core.waiting.estimate import Wait

STEP = 0.05  # of the logarithm: nine in ten of it up for a wait beyond, a tenth of it down for one within [I]
LEAST, MOST = math.log(0.1), math.log(30.0)
OCTAVES = 21  # of requests ahead: the last begins at 524,288, more than all classes may hold


def octave(ahead: float) -> int:
    """0: nobody, 1: one, 2: two or three, 3: four to seven ..."""
    return min(int(ahead).bit_length(), OCTAVES - 1) if ahead > 0 else 0


class Bounds:
    __slots__ = ("_factors", "_level", "_z")

    def __init__(self, z: float) -> None:
        """z: standard deviations of a normal wait, which say how often the bound is to hold: 1.28 nine times in ten."""
        self._z = z
        self._level = NormalDist().cdf(z)
        self._factors = [0.0] * OCTAVES  # their logarithms

    def of(self, wait: Wait, ahead: float) -> float:
        """Seconds; ahead: requests that stand before. Never under what is expected."""
        return max(wait.mean_s, math.exp(self._factors[octave(ahead)]) * wait.bound(self._z))

    def record(self, ahead: float, bound_s: float, waited_s: float) -> None:
        """It is over: what was said when it came, and how long it was."""
        at = octave(ahead)
        moved = self._factors[at] + STEP * (self._level - (waited_s <= bound_s))
        self._factors[at] = min(max(moved, LEAST), MOST)
