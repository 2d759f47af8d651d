"""How far off expected waits were, by how many stood ahead: in bounded memory, old errors fading."""

import math
from dataclasses import dataclass

from headrace.core.waiting.bounds import OCTAVES, octave

# Bins a fifth of an octave wide: medians are good to 7 %.
_PER_OCTAVE = 5
_LEAST_S, _MOST_S = 1e-3, 1e5
_LEAST_SHARE, _MOST_SHARE = 1e-3, 1e3
_RENORMALISE = 1e9  # a new error's weight grows instead of all old ones' shrinking
MEMORY = 1_000.0  # errors, of each bucket


@dataclass(frozen=True, slots=True)
class WaitErrorRow:
    """Of requests with ahead_from to 2 * ahead_from - 1 before them when they came (0: none, 1: one)."""

    ahead_from: int
    requests: int  # counted in all, faded ones too
    median_s: float  # of the absolute error
    p90_s: float
    median_share: float  # of the absolute error, as a share of the true wait
    within_bound: float  # how often the wait stayed within its upper bound: 0 to 1


class WaitErrors:
    """Expected against true waits, in seconds."""

    __slots__ = ("_buckets", "_memory")

    def __init__(self, memory: float = MEMORY) -> None:
        assert memory > 1
        self._memory = memory
        self._buckets: list[_Bucket | None] = [None] * OCTAVES

    def record(self, ahead: float, expected_s: float, bound_s: float, waited_s: float) -> None:
        at = octave(ahead)
        bucket = self._buckets[at]
        if bucket is None:
            bucket = self._buckets[at] = _Bucket(1.0 - 1.0 / self._memory)
        bucket.add(abs(expected_s - waited_s), waited_s, waited_s <= bound_s)

    def rows(self) -> tuple[WaitErrorRow, ...]:
        """Of those numbers ahead that there were, fewest first."""
        return tuple(
            bucket.row(1 << (at - 1) if at else 0) for at, bucket in enumerate(self._buckets) if bucket is not None
        )


class _Bucket:
    __slots__ = ("_errors", "_fade", "_held", "_requests", "_shares", "_total", "_unit")

    def __init__(self, fade: float) -> None:
        self._fade = fade
        self._unit = 1.0
        self._errors = _bins(_LEAST_S, _MOST_S)
        self._shares = _bins(_LEAST_SHARE, _MOST_SHARE)
        self._held = self._total = 0.0
        self._requests = 0

    def add(self, error_s: float, waited_s: float, held: bool) -> None:
        self._unit /= self._fade
        unit = self._unit
        self._requests += 1
        self._errors[_place(error_s, _LEAST_S, len(self._errors))] += unit
        self._shares[_place(error_s / max(waited_s, _LEAST_S), _LEAST_SHARE, len(self._shares))] += unit
        self._total += unit
        if held:
            self._held += unit
        if unit > _RENORMALISE:
            self._renormalise()

    def _renormalise(self) -> None:
        unit, self._unit = self._unit, 1.0
        self._errors = [weight / unit for weight in self._errors]
        self._shares = [weight / unit for weight in self._shares]
        self._held, self._total = self._held / unit, self._total / unit

    def row(self, ahead_from: int) -> WaitErrorRow:
        return WaitErrorRow(
            ahead_from,
            self._requests,
            _quantile(self._errors, _LEAST_S, 0.5),
            _quantile(self._errors, _LEAST_S, 0.9),
            _quantile(self._shares, _LEAST_SHARE, 0.5),
            self._held / self._total,
        )


def _bins(least: float, most: float) -> list[float]:
    """The first holds all up to `least`, the last all beyond `most`."""
    return [0.0] * (math.ceil(math.log2(most / least) * _PER_OCTAVE) + 2)


def _place(value: float, least: float, bins: int) -> int:
    return min(1 + int(math.log2(value / least) * _PER_OCTAVE), bins - 1) if value > least else 0


def _quantile(weights: list[float], least: float, level: float) -> float:
    """Linear in the logarithm within a bin; 0 up to `least`."""
    left = level * sum(weights)
    for at, weight in enumerate(weights):
        if left <= weight and weight > 0.0:
            return float(least * 2.0 ** ((at - 1 + left / weight) / _PER_OCTAVE)) if at else 0.0
        left -= weight
    return float(least * 2.0 ** ((len(weights) - 1) / _PER_OCTAVE))
