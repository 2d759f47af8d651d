"""Bars that may go to either side of zero, with their intervals: gains and losses of systems, in any unit."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from headrace.characterize.document import Figure
from headrace.report.axes import round_step
from headrace.report.chart import COLOURS, WIDTH
from headrace.report.compare import Estimate

Rows = Sequence[tuple[str, Estimate]]
_ROW, _HEAD, _BAR, _FOOT = 20, 26, 12, 34
_CHARACTER = 7.0  # width of one, about
_TOLD = 130  # room for a bar's figure, behind its end
_TICKS_ABOUT = 4


def bars(title: str, groups: Mapping[str, Rows], unit: str, times: float = 1.0) -> Figure:
    """A group of bars under each heading; one name has one colour everywhere. times: 100 makes shares per cent."""
    groups = {heading: [(name, _times(each, times)) for name, each in rows] for heading, rows in groups.items()}
    names = list(dict.fromkeys(name for rows in groups.values() for name, _ in rows))
    left = min(210.0, 12 + _CHARACTER * max((len(name) for name in names), default=0))
    low, high, step = _range([figure for rows in groups.values() for _, figure in rows])
    across = _Across(left, WIDTH - left - _TOLD, low, high)
    height = sum(_HEAD + _ROW * len(rows) for rows in groups.values()) + _FOOT
    parts, told, top = _ticks(across, step, height, unit), list[str](), 4.0
    for heading, rows in groups.items():
        parts.append(_text(0, top + 16, heading, "start", "strong"))
        top += _HEAD
        for name, figure in rows:
            parts.append(_bar(name, figure, COLOURS[names.index(name) % len(COLOURS)], across, top, unit))
            told.append(f"{heading}, {name}: {_told(figure, unit)}")
            top += _ROW
    box = Markup('<svg viewBox="0 0 {} {:.0f}" role="img" aria-label="{}">{}</svg>')
    return Figure(title, box.format(WIDTH, height, f"{title}. {'; '.join(told)}.", Markup("\n").join(parts)))


class _Across:
    """From values to places."""

    def __init__(self, left: float, wide: float, low: float, high: float) -> None:
        self.left, self.wide, self.low, self.high = left, wide, low, high

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.left + self.wide * min(1.0, max(0.0, share))


def _range(figures: Sequence[Estimate]) -> tuple[float, float, float]:
    """From the lowest to the highest round number that is needed, zero among them, and the step between ticks."""
    known = [each.mean + side * each.sure for each in figures for side in (-1, 1) if math.isfinite(each.mean)]
    low, high = min([0.0, *known]), max([0.0, *known])
    step = round_step(((high - low) or 1.0) / _TICKS_ABOUT)
    low, high = step * math.floor(low / step + 1e-9), step * math.ceil(high / step - 1e-9)
    return low, high if high > low else low + step, step


def _ticks(across: _Across, step: float, height: float, unit: str) -> list[Markup]:
    parts, count = [], round((across.high - across.low) / step)
    for place in range(count + 1):
        value = across.low + place * step
        kind = "axis" if abs(value) < step * 1e-6 else "grid"
        rule = Markup('<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="4" y2="{}"/>')
        parts += [rule.format(kind, across(value), across(value), height - 30)]
        parts += [_text(across(value), height - 14, "0" if kind == "axis" else f"{value:g}", "middle")]
    return [*parts, _text(across.left + across.wide + 22, height - 14, unit, "start", "label")]


def _bar(name: str, figure: Estimate, colour: str, across: _Across, top: float, unit: str) -> Markup:
    middle = top + 8
    parts = [_text(across.left - 8, middle + 4, name, "end")]
    parts.append(_text(across.left + across.wide + 8, middle + 4, _told(figure, unit), "start"))
    if math.isfinite(figure.mean):
        ends = sorted((across(0.0), across(figure.mean)))
        box = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}" fill="{}"/>')
        parts.append(box.format(ends[0], middle - _BAR / 2, ends[1] - ends[0], _BAR, colour))
        if figure.sure:
            ends = [across(figure.mean + side * figure.sure) for side in (-1, 1)]
            whisker = Markup('<path class="whisker" d="M{0:.1f} {2:.1f}H{1:.1f}M{0:.1f} {3:.1f}v8M{1:.1f} {3:.1f}v8"/>')
            parts.append(whisker.format(ends[0], ends[1], middle, middle - 4))
    return Markup("").join(parts)


def _told(figure: Estimate, unit: str) -> str:
    if not math.isfinite(figure.mean):
        return "none"
    return f"{figure.mean:.1f}" + (f" ± {figure.half:.1f}" if math.isfinite(figure.half) else "") + f" {unit}".rstrip()


def _times(figure: Estimate, times: float) -> Estimate:
    return Estimate(times * figure.mean, times * figure.half)


def _text(x: float, y: float, words: str, anchor: str, kind: str = "tick") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(kind, x, y, anchor, words)
