"""Numbers as people read them: one unit a column, and as many digits as its smallest figure needs for three."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headrace.report.compare import Estimate


@dataclass(frozen=True, slots=True)
class Unit:
    """`value / size` is in this unit."""

    name: str
    size: float
    decimals_max: int = 3


COUNT = (Unit("", 1.0, 0),)
RATE = (Unit("1/s", 1.0),)
SECONDS = (Unit("ms", 1e-3), Unit("s", 1.0), Unit("min", 60.0), Unit("h", 3600.0))
SHARE = (Unit("%", 0.01, 1),)
GPU_HOURS = (Unit("GPU h", 1.0),)
JOULES = (Unit("J", 1.0), Unit("kJ", 1e3), Unit("MJ", 1e6), Unit("GJ", 1e9))
WATTS = (Unit("W", 1.0), Unit("kW", 1e3), Unit("MW", 1e6))
NOTHING = "–"


def unit_for(values: Iterable[float], units: Sequence[Unit]) -> Unit:
    """The largest in which the smallest of `values` is still one or more; the first if none is."""
    sizes = [abs(value) for value in values if math.isfinite(value) and value]
    if not sizes:
        return units[min(1, len(units) - 1)] if units is SECONDS else units[0]
    fitting = [unit for unit in units if min(sizes) >= unit.size or max(sizes) >= 1_000 * unit.size]
    return fitting[-1] if fitting else units[0]


def texts(figures: Sequence[Estimate], unit: Unit) -> list[str]:
    """A column: `0.421`, or `0.421 ± 0.012` where seeds differ, all with the same digits behind the point."""
    means = [abs(each.mean / unit.size) for each in figures if math.isfinite(each.mean) and each.mean]
    decimals = min(decimals_for(min(means, default=0.0)), unit.decimals_max)
    spread = any(round(each.sure / unit.size, decimals) for each in figures)
    return [_text(each, unit, decimals, spread) for each in figures]


def _text(figure: Estimate, unit: Unit, decimals: int, spread: bool) -> str:
    if not math.isfinite(figure.mean):
        return NOTHING
    mean = f"{figure.mean / unit.size:,.{decimals}f}"
    return f"{mean} ± {figure.half / unit.size:,.{decimals}f}" if spread and math.isfinite(figure.half) else mean


def decimals_for(value: float) -> int:
    """Behind the point, so that three digits count."""
    return max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
