"""What is left of a running request's output, asked again and again while it decodes.

Prediction.given makes a distribution anew; its first two moments alone are a sum over the pieces beyond, which one pass
prepares for every number of tokens.
"""

from bisect import bisect_right
from math import log

from headrace.core.lengths.prediction import Prediction, piece


class Remaining:
    """Of one prediction; made once a job, then asked at every plan."""

    __slots__ = ("_beyond", "_last", "_most", "_p", "_x")

    def __init__(self, length: Prediction) -> None:
        """length: of the whole output, nothing emitted."""
        assert not length.emitted, "made of a whole output's prediction"
        self._p, self._x, self._most = length.p, length.x, length.most
        self._beyond: tuple[tuple[float, float], ...] = ()
        self._last = (0, *length.moments)

    def after(self, emitted: int) -> tuple[float, float]:
        """Mean and variance of the tokens to come after so many, as of Prediction.given(emitted)."""
        if emitted == self._last[0]:
            return self._last[1:]
        x, p = self._x, self._p
        if not self._beyond:
            self._beyond = _beyond(p, x)
        at = bisect_right(x, emitted)
        if at == len(x):
            mean, variance = self._outlived(emitted)
        elif at == 0:
            first, second = self._beyond[0]
            mean, variance = first - emitted, second - first * first
        else:
            share = log(emitted / x[at - 1]) / log(x[at] / x[at - 1])
            weight = (p[at] - p[at - 1]) * (1.0 - share)
            own, own_square = piece(emitted, x[at])
            alive = 1.0 - p[at] + weight
            first = (self._beyond[at][0] + weight * own) / alive
            second = (self._beyond[at][1] + weight * own_square) / alive
            mean, variance = first - emitted, second - first * first
        self._last = (emitted, mean, max(0.0, variance))
        return mean, max(0.0, variance)

    def _outlived(self, emitted: int) -> tuple[float, float]:
        """As Prediction.given has it: up to as long again."""
        first, second = piece(emitted + 1.0, max(emitted + 1.0, min(2.0 * emitted, float(self._most))))
        return first - emitted, second - first * first


def _beyond(p: tuple[float, ...], x: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
    """Of the pieces from each on: the sums of probability times mean, and times mean square."""
    beyond = [(0.0, 0.0)]
    for i in range(len(p) - 2, -1, -1):
        mean, square = piece(x[i], x[i + 1])
        weight = p[i + 1] - p[i]
        beyond.append((beyond[-1][0] + weight * mean, beyond[-1][1] + weight * square))
    return tuple(reversed(beyond))
