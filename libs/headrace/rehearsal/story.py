"""What a rehearsal of one cut tells: curves, a table of before, during and after, and the finding in a line."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.rehearsal import figures, meter
from headrace.rehearsal.figures import Floats, Series
from headrace.rehearsal.load import Asked
from headrace.rehearsal.scene import CLASSES
from headrace.rehearsal.stage import Moment
from headrace.rehearsal.watch import Reading

LOOK_S = 6.0  # requests whose first token came in the last so many seconds make a percentile


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the story, and what was measured in it; nan: nothing to measure."""

    name: str
    from_s: float
    to_s: float
    limit_w: float  # 0: none
    power_w: float
    peak_w: float  # after the seconds in which a lower limit must be kept
    hottest_c: float
    goodput_tok_s: float
    ttft_s: tuple[float, float]  # median and 95th percentile
    class_ttft_s: Mapping[str, tuple[float, float]]
    tbt_s: tuple[float, float]
    kept: float  # share of requests that had their first token in time
    joules_per_token: float


@dataclass(frozen=True, slots=True)
class Story:
    """Curves over the same times; seconds since the first moment."""

    power: Series
    limit: Series
    hottest: Series
    goodput: Series
    ttft_p50: Series
    ttft_p95: Series
    phases: tuple[Phase, ...]

    def finding(self) -> str:
        """In one line, of three phases."""
        before, during, after = self.phases
        known = figures.before_the_next(self.power, during.to_s)
        over = figures.overshoot(known, during.limit_w, during.from_s, during.to_s)
        fell_s = fell(self.power, during.limit_w, during.from_s, during.to_s)
        fall = "never kept" if fell_s is None else f"kept after {fell_s:.1f} s"
        above = f", {over.share:.0%} above it at most" if over.share >= 0.005 else ""
        return (
            f"Budget cut from {before.power_w / 1e3:.2f} to {during.limit_w / 1e3:.2f} kW: {fall}{above}; "
            f"{_share(during, before)} of the tokens in the cut, {_share(after, before)} after it"
        )


def _share(phase: Phase, before: Phase) -> str:
    """Of goodput before; what had waited is served later, so it may be more than all."""
    share = phase.goodput_tok_s / before.goodput_tok_s if before.goodput_tok_s else math.nan
    return "all" if share >= 0.995 else f"{share:.0%}"


def fell(power: Series, limit_w: float, from_s: float, to_s: float) -> float | None:
    """Seconds until power was first within the limit; None: never."""
    seen = power.within(from_s, to_s)
    below = seen.at_s[seen.values <= limit_w * (1.0 + figures.TOLERATED)]
    return float(below[0] - from_s) if len(below) else None


def tell(
    moments: Sequence[Moment],
    names: Sequence[str],
    readings: Mapping[str, Sequence[Reading]],
    asked: Sequence[Asked],
    until_s: float,
) -> Story:
    """names: of the moments that are phases; each lasts to the next moment, or until_s. Times: Unix epoch."""
    zero_s = moments[0].at_s
    at_s = np.arange(zero_s, until_s, figures.STEP_S)
    power = Series(at_s, meter.watts(readings, at_s))
    good = figures.goodput(asked, CLASSES, at_s)
    ends = [*(moment.at_s for moment in moments[1:]), until_s]
    phases = tuple(
        _phase(moment, end_s, zero_s, power, good, readings, asked)
        for moment, end_s in zip(moments, ends, strict=True)
        if moment.name in names
    )
    p50, p95 = _percentiles(asked, at_s)
    shown_s = at_s - zero_s
    return Story(
        Series(shown_s, power.values),
        Series(shown_s, np.array([_limit(moments, at) for at in at_s])),
        Series(shown_s, meter.hottest_c(readings, at_s)),
        Series(shown_s, figures.smooth(good, 2.0).values),
        Series(shown_s, p50),
        Series(shown_s, p95),
        phases,
    )


def _phase(
    moment: Moment,
    end_s: float,
    zero_s: float,
    power: Series,
    good: Series,
    readings: Mapping[str, Sequence[Reading]],
    asked: Sequence[Asked],
) -> Phase:
    from_s = moment.at_s
    rows = figures.arrived(asked, from_s, end_s)
    by_class = {name: _ttft([row for row in rows if row.slo_class == name]) for name in CLASSES}
    tbt = figures.tbt_percentiles(asked, from_s, end_s, (0.5, 0.95))
    late = power.within(from_s + figures.REACT_S, end_s).values
    temps = meter.hottest_c(readings, power.within(from_s, end_s).at_s)
    known = [row for row in rows if row.failure or not math.isnan(row.first_s)]
    mean_w, tokens = figures.mean(power, from_s, end_s), _tokens(asked, from_s, end_s)
    return Phase(
        moment.name,
        from_s - zero_s,
        end_s - zero_s,
        moment.limit_w,
        mean_w,
        float(late.max()) if len(late) else math.nan,
        float(np.nanmax(temps)) if np.isfinite(temps).any() else math.nan,
        figures.mean(good, from_s, end_s),
        _ttft(rows),
        by_class,
        (tbt[0], tbt[1]),
        sum(figures.kept(row, CLASSES) for row in known) / len(known) if known else math.nan,
        mean_w * (end_s - from_s) / tokens if tokens else math.nan,
    )


def _ttft(rows: Sequence[Asked]) -> tuple[float, float]:
    p50, p95 = figures.ttft_percentiles(rows, (0.5, 0.95))
    return p50, p95


def _tokens(asked: Sequence[Asked], from_s: float, to_s: float) -> int:
    return sum(count for row in asked for at_s, count in row.tokens if from_s <= at_s < to_s)


def _limit(moments: Sequence[Moment], at_s: float) -> float:
    """nan: none."""
    held = next((moment.limit_w for moment in reversed(moments) if moment.at_s <= at_s), 0.0)
    return held or math.nan


def _percentiles(asked: Sequence[Asked], at_s: Floats) -> tuple[Floats, Floats]:
    """Time to the first token of those that came in the last LOOK_S: median and 95th percentile."""
    rows = sorted((row for row in asked if not math.isnan(row.first_s)), key=lambda row: row.first_s)
    firsts, ttfts = np.array([row.first_s for row in rows]), np.array([row.ttft_s for row in rows])
    p50, p95 = np.full(len(at_s), np.nan), np.full(len(at_s), np.nan)
    starts, stops = np.searchsorted(firsts, at_s - LOOK_S), np.searchsorted(firsts, at_s, side="right")
    for place, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        if stop > start:
            p50[place], p95[place] = np.quantile(ttfts[start:stop], (0.5, 0.95))
    return p50, p95
