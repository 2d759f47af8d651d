"""Charts of an analysis, in the hand of headrace.report: lines over an axis, and bars made of parts."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from markupsafe import Markup

from headrace.characterize.document import Figure
from headrace.report import axes, chart
from headrace.report.axes import Axis
from headrace.report.chart import COLOURS, WIDTH, Line, Mark
from headrace.report.digest import Curve

Points = Sequence[tuple[float, float]]
_LEFT, _RIGHT, _ROW, _BAR = 150, 62, 26, 15
_LIGHT = (5, 6)  # styles on which dark letters are read
_CHARACTER = 7.0  # width of one, about


def lines(
    title: str,
    series: Mapping[str, Points],
    x: Callable[[Iterable[float]], Axis],
    y: Callable[[Iterable[float]], Axis],
    *,
    step: bool = False,
    marks: Sequence[Mark] = (),
) -> Figure:
    """A line for each name, x rising; the axes are made for all of them."""
    known = {name: points for name, points in series.items() if points}
    drawn = [
        Line(name, Curve(np.array([at for at, _ in points]), np.array([value for _, value in points])), style, step)
        for style, (name, points) in enumerate(known.items())
    ]
    across = x([at for points in known.values() for at, _ in points])
    down = y([value for points in known.values() for _, value in points])
    legend = tuple((line.name, chart.stroke(line.style)) for line in drawn)
    return Figure(title, chart.lines(title, drawn, across, down, marks), legend if len(legend) > 1 else ())


def linear(label: str, high: float = 0.0) -> Callable[[Iterable[float]], Axis]:
    return lambda values: axes.linear(label, values, high=high)


def logarithmic(label: str) -> Callable[[Iterable[float]], Axis]:
    return lambda values: axes.logarithmic(label, values)


def doubling(label: str) -> Callable[[Iterable[float]], Axis]:
    """A logarithmic axis with a tick at each value: 1, 2, 4, 8 at once."""

    def axis(values: Iterable[float]) -> Axis:
        ticks = tuple(sorted({value for value in values if value > 0})) or (1.0, 2.0)
        return Axis(label, ticks[0], max(ticks[-1], ticks[0] * 1.001), ticks, log=True)

    return axis


def stacked(
    title: str, parts: Sequence[str], rows: Sequence[tuple[str, Sequence[float]]], ends: Sequence[str] = ()
) -> Figure:
    """Shares (0 to 1) of a whole, a bar for each row from 0 to 100 %; `ends` stand behind the bars."""
    wide, height = WIDTH - _LEFT - _RIGHT, _ROW * len(rows) + 26
    drawn, told = [], []
    for tenth in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = _LEFT + tenth * wide
        rule = Markup('<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="0" y2="{1}"/>')
        drawn += [rule.format(at, height - 22), _text(at, height - 8, f"{tenth * 100:.0f} %", "middle")]
    for place, (name, shares) in enumerate(rows):
        top, at = place * _ROW + 4.0, float(_LEFT)
        drawn.append(_text(_LEFT - 8, top + 12, name, "end"))
        for style, share in enumerate(shares):
            drawn.append(_piece(style, share, at, wide, top))
            at += share * wide
        if ends:
            drawn.append(_text(WIDTH - _RIGHT + 8, top + 12, ends[place], "start"))
        told.append(f"{name}: " + ", ".join(f"{part} {s * 100:.0f} %" for part, s in zip(parts, shares, strict=True)))
    box = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
    svg = box.format(WIDTH, height, f"{title}. {'; '.join(told)}.", Markup("\n").join(drawn))
    thick = Markup('stroke="{}" style="stroke-width: 9; stroke-linecap: butt"')
    return Figure(title, svg, tuple((part, thick.format(COLOURS[style])) for style, part in enumerate(parts)))


def _piece(style: int, share: float, at: float, wide: float, top: float) -> Markup:
    box = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}" fill="{}"/>')
    piece = box.format(at, top, share * wide, _BAR, COLOURS[style])
    words = f"{share * 100:.0f}"
    if share * wide < _CHARACTER * (len(words) + 1):
        return piece
    text = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="middle" style="fill: {}">{}</text>')
    colour = "#1b1f24" if style in _LIGHT else "#fff"
    return piece + text.format(at + share * wide / 2, top + 12, colour, words)


def _text(x: float, y: float, words: str, anchor: str) -> Markup:
    return Markup('<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, words)
