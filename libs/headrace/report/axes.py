"""Axes: from values to places on paper, and the round numbers that are written beside them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TICKS_ABOUT = 5
_ROUND = (1.0, 2.0, 5.0, 10.0)
_ROUND_CLOSE = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
_NARROW = 5.0  # largest over smallest: up to that, 1, 2, 5 would leave two ticks


@dataclass(frozen=True, slots=True)
class Axis:
    """`label` says what is measured in which unit; low < high, both above 0 where `log`."""

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def share(self, value: float) -> float:
        """How far along: 0 at low, 1 at high; not clipped."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def tick_text(self, value: float) -> str:
        if self.log or not value:
            return f"{value:,.10g}"
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else value
        return f"{value:,.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def linear(label: str, values: Iterable[float], *, high: float = 0.0) -> Axis:
    """From 0 to the first round number above the largest value, or to `high`."""
    top = high or max((value for value in values if math.isfinite(value)), default=0.0) or 1.0
    step = round_step(top / TICKS_ABOUT)
    count = math.ceil(top / step - 1e-9)
    return Axis(label, 0.0, high or count * step, tuple(index * step for index in range(count + 1)))


def logarithmic(label: str, values: Iterable[float]) -> Axis:
    """Between round numbers (1, 2, 5 times a power of ten; closer ones in a narrow range) around what is positive."""
    known = [value for value in values if math.isfinite(value) and value > 0]
    low, high = (min(known), max(known)) if known else (0.1, 1.0)
    bases = _ROUND[:3] if high / low > _NARROW else _ROUND_CLOSE
    rounds = [base * 10.0**power for power in range(-9, 12) for base in bases]
    below = [value for value in rounds if value <= low * (1 + 1e-9)][-1]
    above = next(value for value in rounds if value >= high * (1 - 1e-9) and value > below)
    inside = [value for value in rounds if below * 0.999 <= value <= above * 1.001]
    decades = [value for value in inside if abs(math.log10(value) - round(math.log10(value))) < 1e-9]
    return Axis(label, below, above, tuple(decades if len(decades) > 2 else inside), log=True)


def round_step(about: float) -> float:
    """The first of 1, 2, 5 times a power of ten that is not below `about`."""
    base = 10.0 ** math.floor(math.log10(about))
    return next(base * factor for factor in _ROUND if base * factor >= about * (1 - 1e-9))


# Longest run, unit, its seconds, steps that people count in.
_CLOCK: Sequence[tuple[float, str, float, tuple[float, ...]]] = (
    (180.0, "s", 1.0, (1, 2, 5, 10, 20, 30, 60)),
    (3 * 3_600.0, "min", 60.0, (0.5, 1, 2, 5, 10, 15, 30, 60)),
    (3 * 86_400.0, "h", 3_600.0, (0.5, 1, 2, 3, 6, 12, 24)),
    (math.inf, "days", 86_400.0, (0.5, 1, 2, 5, 7, 14, 28, 91, 182, 365)),
)


def clock(duration_s: float) -> tuple[Axis, float]:
    """The axis of a run's time, and how many seconds its unit has."""
    _, unit, unit_s, steps = next(row for row in _CLOCK if duration_s <= row[0])
    high = (duration_s or 1.0) / unit_s
    step = next((step for step in steps if high / step <= TICKS_ABOUT + 1.5), steps[-1])
    ticks = tuple(index * step for index in range(int(high / step + 1e-9) + 1))
    return Axis(f"time since the run's beginning, {unit}", 0.0, high, ticks), unit_s
