"""The terminal's picture of a rehearsal: power against its limit in columns, temperature, goodput, waits.

Not on a terminal: one line every few seconds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from headrace.rehearsal.figures import STEP_S, Floats, Series
from headrace.rehearsal.scene import CLASSES
from headrace.rehearsal.story import Phase, Story

BLOCKS = " ▁▂▃▄▅▆▇█"
LINE_W = 500.0  # of the chart
LINES_LEAST = 8
LABEL = 16  # columns left of a chart
WIDEST = 140
DRAW_S, SAY_S = 0.5, 3.0
LIVE_ROWS = {"power, mean", "next token", *(f"first token, {name}" for name in CLASSES)}
TITLES = {"before": "before", "during": "budget cut", "after": "restored"}


@dataclass(frozen=True, slots=True)
class Held:
    """A stage's workers, the tightest cap among them (0: none), the least speed."""

    stage: str
    workers: int
    cap_w: float
    speed: float


class Screen:
    """every_s: how often it wants to be drawn."""

    def __init__(self, whole_s: float, cut: float) -> None:
        self._console = Console(highlight=False)
        self._whole_s = whole_s
        self._cut = cut
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._said = 0  # samples; the end of the story is not said twice
        self.every_s = DRAW_S if self._live is not None else SAY_S

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def draw(self, story: Story, stages: Sequence[Held]) -> None:
        if self._live is None:
            if math.isnan(_last(story.power)):
                return  # no device has said anything
            if len(story.power.at_s) > self._said:
                self._console.print(line(story), soft_wrap=True)
            self._said = len(story.power.at_s) + round(1.0 / STEP_S)
        else:
            width = min(self._console.width, WIDEST)
            self._live.update(picture(story, stages, self._whole_s, self._cut, width), refresh=True)


def line(story: Story) -> str:
    """What is measured now."""
    phase, now_s = story.phases[-1], float(story.power.at_s[-1]) if len(story.power.at_s) else 0.0
    limit = f"of {phase.limit_w:.0f} W" if phase.limit_w else "without a limit"
    return (
        f"{now_s:5.1f} s  {TITLES[phase.name]:10}  {_last(story.power):5.0f} W {limit:15}  "
        f"{_last(story.hottest):3.0f} C  {_last(story.goodput):4.0f} tok/s  "
        f"TTFT p50 {_last(story.ttft_p50):4.2f} s, p95 {_last(story.ttft_p95):4.2f} s"
    )


def picture(story: Story, stages: Sequence[Held], whole_s: float, cut: float, width: int) -> RenderableType:
    """23 lines: a terminal of 24 holds it."""
    columns = width - LABEL - 1
    now_s = float(story.power.at_s[-1]) if len(story.power.at_s) else 0.0
    lines = max(LINES_LEAST, math.ceil(float(np.fmax.reduce(story.power.values, initial=0.0)) / LINE_W))
    return Group(
        Text(_head(story.phases[-1], cut, now_s), "bold", no_wrap=True),
        _legend(),
        *_chart(story, whole_s, columns, lines),
        _axis(story, whole_s, columns),
        _spark("hottest", story.hottest, whole_s, columns, "{:.0f} C", from_zero=False),
        _spark("tokens/s", story.goodput, whole_s, columns, "{:.0f}"),
        _spark("TTFT p95", story.ttft_p95, whole_s, columns, "{:.2f} s"),
        Text(),
        _table(story),
        _caps(stages),
    )


def _legend() -> Text:
    text = Text("row power, W   ", "dim", no_wrap=True)
    for sign, style, means in (
        ("█", "green", "within its limit"),
        ("█", "red", "above it"),
        ("━", "yellow", "the limit"),
    ):
        text.append(sign, style).append(f" {means}   ")
    return text


def _head(phase: Phase, cut: float, now_s: float) -> str:
    what = {
        "before": "before: as much power as the work wants",
        "during": f"budget cut to {cut:.0%} of the demand: {phase.limit_w:.0f} W for the row",
        "after": f"restored: {phase.limit_w:.0f} W for the row",
    }[phase.name]
    return f"{now_s:4.0f} s  {what}"


def resample(series: Series, whole_s: float, columns: int) -> Floats:
    """The mean in each column; nan where nothing was measured."""
    place = np.minimum((series.at_s / whole_s * columns).astype(int), columns - 1)
    known = np.isfinite(series.values)
    sums = np.bincount(place[known], series.values[known], columns)
    counts = np.bincount(place[known], minlength=columns)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = _joined(np.where(counts > 0, sums / counts, np.nan), int(place.max(initial=-1)))
    return found


def _joined(values: Floats, last: int) -> Floats:
    """Columns narrower than a sample say what the one before them says."""
    for at in range(1, last + 1):
        if np.isnan(values[at]) and not np.isnan(values[at - 1]) and np.isfinite(values[at:]).any():
            values[at] = values[at - 1]
    return values


def _chart(story: Story, whole_s: float, columns: int, lines: int) -> list[Text]:
    watts, limits = resample(story.power, whole_s, columns), resample(story.limit, whole_s, columns)
    found = []
    for row in range(lines, 0, -1):
        label = f"{row * LINE_W:.0f} ┤" if row % 2 == 0 else "│"
        text = Text(label.rjust(LABEL) + " ", "dim", no_wrap=True)
        for at in range(columns):
            text.append(*_cell(watts[at], limits[at], (row - 1) * LINE_W, LINE_W))
        found.append(text)
    return found


def _cell(watts: float, limit_w: float, floor_w: float, step_w: float) -> tuple[str, str]:
    """A character and its style: the bar, the limit's line above it, or nothing."""
    above = not math.isnan(limit_w) and watts > 1.03 * limit_w
    colour = "red" if above else "green"
    filled = 0.0 if math.isnan(watts) else min(1.0, max(0.0, (watts - floor_w) / step_w))
    if not math.isnan(limit_w) and floor_w <= limit_w < floor_w + step_w:
        return ("━", f"yellow on {colour}") if filled >= 1.0 else ("━", "yellow")
    return BLOCKS[round(8 * filled)], colour


def _axis(story: Story, whole_s: float, columns: int) -> Text:
    """Where phases begin, with their names."""
    marks = ["─"] * columns
    names = [" "] * columns
    for phase in story.phases:
        at = min(columns - 1, int(phase.from_s / whole_s * columns))
        marks[at] = "┴" if at else "─"
        for offset, letter in enumerate(f"{TITLES[phase.name]}, {phase.from_s:.0f} s"):
            if at + offset < columns:
                names[at + offset] = letter
    text = Text("0 └".rjust(LABEL) + "─", "dim", no_wrap=True)
    return text.append("".join(marks)).append("\n" + " " * (LABEL + 1) + "".join(names), "bold")


def _spark(name: str, series: Series, whole_s: float, columns: int, shown: str, *, from_zero: bool = True) -> Text:
    """A line of blocks from 0, or from its least, to its most; the last value before it."""
    values = resample(series, whole_s, columns)
    known = values[np.isfinite(values)]
    low = 0.0 if from_zero else float(known.min(initial=math.inf))
    span = max(float(known.max(initial=-math.inf)) - low, 1e-9)
    cells = [" " if math.isnan(value) else BLOCKS[1 + round(7 * (value - low) / span)] for value in values]
    now = _known(shown.format(_last(series)))
    text = Text(f"{name} {now:>{LABEL - len(name) - 1}} ", "dim", no_wrap=True)
    return text.append("".join(cells), "cyan")


def _table(story: Story) -> Table:
    heads, rows = table_rows(story)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, head in enumerate(heads):
        table.add_column(head, justify="right" if at else "left", no_wrap=True)
    for row in rows:
        if row[0] in LIVE_ROWS:
            table.add_row(*row)
    return table


def table_rows(story: Story) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heads and rows: what was measured, by phase; phases to come are empty."""
    phases = story.phases
    cells = [
        ("power, mean", [f"{phase.power_w:.0f} W" for phase in phases]),
        ("limit", [f"{phase.limit_w:.0f} W" if phase.limit_w else "none" for phase in phases]),
        ("hottest GPU", [f"{phase.hottest_c:.0f} C" for phase in phases]),
        ("goodput", [f"{phase.goodput_tok_s:.0f} tok/s" for phase in phases]),
        ("energy per token", [f"{phase.joules_per_token:.1f} J" for phase in phases]),
        *((f"first token, {name}", [_s(phase.class_ttft_s[name]) for phase in phases]) for name in CLASSES),
        ("next token", [_ms(phase.tbt_s) for phase in phases]),
        ("first token in time", [f"{phase.kept:.0%}" for phase in phases]),
    ]
    missing = [""] * (len(TITLES) - len(phases))
    return ("p50 / p95", *TITLES.values()), [(name, *map(_known, values), *missing) for name, values in cells]


def _s(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.2f} / {pair[1]:.2f} s"


def _ms(pair: tuple[float, float]) -> str:
    return f"{1e3 * pair[0]:.0f} / {1e3 * pair[1]:.0f} ms"


def _known(text: str) -> str:
    return "-" if "nan" in text else text


def _caps(stages: Sequence[Held]) -> Text:
    """What each stage's GPUs may draw now."""
    text = Text("caps ", "dim", no_wrap=True, overflow="ellipsis")
    for one in stages:
        held = f"{one.cap_w:.0f} W ({one.speed:.0%} speed)" if one.cap_w else "none"
        text.append(f"{one.workers} {one.stage} ", "bold").append(f"{held}  ")
    return text


def _last(series: Series) -> float:
    known = series.values[np.isfinite(series.values)]
    return float(known[-1]) if len(known) else math.nan
