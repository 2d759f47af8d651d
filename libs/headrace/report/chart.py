"""Charts as SVG text that stands inside a page: lines over an axis, and bars with their intervals.

Colours are Okabe and Ito's ("Color Universal Design", 2008), told apart by the colour-blind; dashes tell them apart in
grey. Text is text, in the page's own type; every chart carries what it shows in words.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from headrace.report.axes import Axis
from headrace.report.compare import Estimate
from headrace.report.digest import Curve

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
DASHES = ("", "7 3", "2 2.5", "9 3 2 3", "", "4 2", "1 4")
WIDTH, HEIGHT = 480, 266
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 30, 40


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    curve: Curve
    style: int  # the policy's place: its colour and dash in every chart
    step: bool = False  # holds its value until the next: of counts


@dataclass(frozen=True, slots=True)
class Mark:
    """A place on the x axis that the reader should know, such as a target or a death."""

    x: float
    text: str


def stroke(style: int) -> Markup:
    """The attributes of a policy's line."""
    dash = DASHES[style % len(DASHES)]
    dashed = Markup(' stroke-dasharray="{}"').format(dash) if dash else Markup("")
    return Markup('stroke="{}"').format(COLOURS[style % len(COLOURS)]) + dashed


def lines(title: str, drawn: Sequence[Line], x: Axis, y: Axis, marks: Sequence[Mark] = ()) -> Markup:
    """A chart; what is nan, or not positive on a logarithmic axis, leaves a gap."""
    parts = [_grid(x, y), *(_mark(mark, x) for mark in marks if x.low <= mark.x <= x.high)]
    for line in drawn:
        path = _path(line, x, y)
        if path:
            parts.append(Markup('<path class="line" d="{}" {}/>').format(path, stroke(line.style)))
    return _svg(HEIGHT, in_words(title, drawn, x, y), parts)


def in_words(title: str, drawn: Sequence[Line], x: Axis, y: Axis) -> str:
    """What somebody who does not see the chart is told."""
    told = []
    for line in drawn:
        known = [float(value) for value in line.curve.y if math.isfinite(value)]
        span = f"between {min(known):.3g} and {max(known):.3g}, at the end {known[-1]:.3g}" if known else "nothing"
        told.append(f"{line.name}: {span}")
    return f"{title}. Down: {y.label}; across: {x.label}. {'; '.join(told)}."


def bars(title: str, groups: Sequence[tuple[str, Sequence[tuple[str, Estimate]]]]) -> Markup:
    """Shares (0 to 1) as bars from 0 to 100 %: groups of rows, a row a policy in the policies' order."""
    longest = max((len(policy) for _, rows in groups for policy, _ in rows), default=0)
    left, right, row, head = 8 + min(200, max(64, 8 * longest)), 116, 20, 26
    height = sum(head + row * len(rows) for _, rows in groups) + 34
    parts, top, told = [], 4.0, []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = left + share * (WIDTH - left - right)
        parts.append(Markup('<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="4" y2="{1}"/>').format(at, height - 30))
        parts.append(_text(at, height - 14, f"{share:.0%}".replace("%", " %"), "middle"))
    for name, rows in groups:
        parts.append(_text(0, top + 16, name, "start", "strong"))
        top += head
        for style, (policy, figure) in enumerate(rows):
            parts.append(_bar(policy, figure, style, left, WIDTH - left - right, top))
            told.append(f"{name}, {policy}: {_percent(figure)}")
            top += row
    return _svg(height, f"{title}. {'; '.join(told)}.", parts)


def _bar(policy: str, figure: Estimate, style: int, left: float, wide: float, top: float) -> Markup:
    middle = top + 8
    parts = [_text(left - 8, middle + 4, policy, "end"), _text(left + wide + 8, middle + 4, _percent(figure), "start")]
    if math.isfinite(figure.mean):
        box = Markup('<rect x="{}" y="{:.1f}" width="{:.1f}" height="12" fill="{}"/>')
        parts.append(box.format(left, middle - 6, figure.mean * wide, COLOURS[style % len(COLOURS)]))
    if math.isfinite(figure.mean) and figure.sure:
        ends = [left + wide * min(1.0, max(0.0, figure.mean + side * figure.sure)) for side in (-1, 1)]
        whisker = Markup('<path class="whisker" d="M{0:.1f} {2:.1f}H{1:.1f}M{0:.1f} {3:.1f}v8M{1:.1f} {3:.1f}v8"/>')
        parts.append(whisker.format(ends[0], ends[1], middle, middle - 4))
    return Markup("").join(parts)


def _percent(figure: Estimate) -> str:
    if not math.isfinite(figure.mean):
        return "none came"
    interval = f" ± {figure.half * 100:.1f}" if math.isfinite(figure.half) else ""
    return f"{figure.mean * 100:.1f}{interval} %"


def _grid(x: Axis, y: Axis) -> Markup:
    bottom = HEIGHT - _BOTTOM
    parts = [_text(0, 12, y.label, "start", "label"), _text(WIDTH - _RIGHT, HEIGHT - 4, x.label, "end", "label")]
    for value in y.ticks:
        at = _down(y, value)
        rule = Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>')
        parts += [rule.format(_LEFT, WIDTH - _RIGHT, at, at), _text(_LEFT - 6, at + 4, y.tick_text(value), "end")]
    for value in x.ticks:
        at = _across(x, value)
        rule = Markup('<line class="axis" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>')
        parts += [rule.format(at, bottom, bottom + 4), _text(at, bottom + 17, x.tick_text(value), "middle")]
    base = Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>')
    return Markup("").join([*parts, base.format(_LEFT, WIDTH - _RIGHT, bottom, bottom)])


def _mark(mark: Mark, x: Axis) -> Markup:
    """A thin line: a short text stands over it, a longer one along it, at its foot, where curves are seldom."""
    at, bottom = _across(x, mark.x), HEIGHT - _BOTTOM
    rule = Markup('<line class="mark" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(at, _TOP, bottom)
    if len(mark.text) <= 2:
        return rule + _text(at, _TOP - 4, mark.text, "middle", "note")
    along = Markup('<text class="note" transform="translate({:.1f} {}) rotate(-90)">{}</text>')
    return rule + along.format(at - 4, bottom - 6, mark.text)


def _path(line: Line, x: Axis, y: Axis) -> str:
    """A stroke for every stretch without a gap; a short dash for a point alone."""
    words: list[str] = []
    for stretch in _stretches(line.curve, x, y):
        places = [(f"{_across(x, at):.1f}", f"{_down(y, value):.1f}") for at, value in stretch]
        words.append("M{} {}".format(*places[0]))
        words += [f"H{across}V{down}" if line.step else f"L{across} {down}" for across, down in places[1:]]
        if len(places) == 1:
            words.append("h3")
    return "".join(words)


def _stretches(curve: Curve, x: Axis, y: Axis) -> list[list[tuple[float, float]]]:
    found: list[list[tuple[float, float]]] = [[]]
    for at, value in zip(curve.x.tolist(), curve.y.tolist(), strict=True):
        if math.isfinite(value) and math.isfinite(at) and (value > 0 or not y.log) and (at > 0 or not x.log):
            found[-1].append((at, value))
        elif found[-1]:
            found.append([])
    return [stretch for stretch in found if stretch]


def _across(axis: Axis, value: float) -> float:
    return _LEFT + axis.share(value) * (WIDTH - _LEFT - _RIGHT)


def _down(axis: Axis, value: float) -> float:
    return HEIGHT - _BOTTOM - axis.share(value) * (HEIGHT - _TOP - _BOTTOM)


def _text(x: float, y: float, words: str, anchor: str, kind: str = "tick") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(kind, x, y, anchor, words)


def _svg(height: float, alt: str, parts: Sequence[Markup]) -> Markup:
    box = Markup('<svg viewBox="0 0 {} {:.0f}" role="img" aria-label="{}">{}</svg>')
    return box.format(WIDTH, height, escape(alt), Markup("\n").join(parts))
