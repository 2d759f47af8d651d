"""One HTML file that stands alone: head, table, charts, and what was assumed. No script, nothing from elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from headrace.report import chart, table
from headrace.report.assumptions import Assumption
from headrace.report.chart import Mark
from headrace.report.compare import Compared
from headrace.report.figures import sections
from headrace.report.provenance import Provenance
from headrace.report.table import Column
from headrace.report.units import COUNT, texts

_COUNTERS = {"transferred_bytes": ("GB transferred", 1e9)}


@dataclass(frozen=True, slots=True)
class Report:
    """All that a page says. `marks`: instants in seconds at which something befell the fleet."""

    title: str
    about: str
    provenance: Provenance
    compared: tuple[Compared, ...]
    assumptions: tuple[Assumption, ...] = ()
    marks: tuple[Mark, ...] = ()
    failures: tuple[str, ...] = ()  # runs of which there is no result, and why


@dataclass(frozen=True, slots=True)
class _Row:
    label: str
    short: str  # where there is little room
    unit: str
    cells: tuple[tuple[str, bool], ...]  # text, and whether it is the best
    part: bool = False  # of the row above


def html(report: Report) -> str:
    assert report.compared, "a report needs a run"
    environment = Environment(
        loader=PackageLoader("headrace.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    style = resources.files("headrace.report").joinpath("page.css").read_text()
    return environment.get_template("page.html.j2").render(
        report=report,
        style=Markup(style),
        policies=[(each.policy, chart.stroke(at)) for at, each in enumerate(report.compared)],
        duration=_duration(max(run.duration_s for each in report.compared for run in each.runs)),
        several=len({run.seed for each in report.compared for run in each.runs}) > 1,
        marks=[f"{mark.text}, after {_duration(mark.x)}" for mark in report.marks],
        rows=[_row(column) for column in table.columns(report.compared)],
        endings=_endings(report.compared),
        counters=_counters(report.compared),
        sections=sections(report.compared, report.marks),
    )


def _row(column: Column) -> _Row:
    cells = tuple(zip(column.cells(), column.best(), strict=True))
    short = " ".join(part for part in (column.figure.head, column.figure.sub) if part)
    return _Row(column.figure.label, short, column.unit.name, cells, column.figure.key.startswith("class:"))


def _endings(compared: Sequence[Compared]) -> list[tuple[str, list[tuple[int, float]]]]:
    """(reason, [(how many, share of all) of each policy]) of reasons that occurred."""
    reasons = [reason for reason in compared[0].first.ended if any(each.ended(reason) for each in compared)]
    totals = [sum(sum(run.ended.values()) for run in each.runs) for each in compared]
    return [
        (
            reason,
            [
                (each.ended(reason), each.ended(reason) / max(1, total))
                for each, total in zip(compared, totals, strict=True)
            ],
        )
        for reason in reasons
    ]


def _counters(compared: Sequence[Compared]) -> list[tuple[str, list[str]]]:
    names = sorted({name for each in compared for run in each.runs for name in run.counters})
    found = []
    for name in names:
        words, size = _COUNTERS.get(name, (name.replace("_", " "), 1.0))
        unit = COUNT[0] if size == 1.0 else type(COUNT[0])(words, size, 1)
        found.append((words, texts([each.counter(name) for each in compared], unit)))
    return found


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"
