"""What an analysis says, before anybody has laid it out: sections of tables and charts, and the same figures as data.

The screen, the page and the JSON object are made from one Document, so that they cannot differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from markupsafe import Markup

from headrace.report.assumptions import Assumption

# computed: from profiles, by arithmetic. simulated: by headrace.sim on profiles. measured: on a running mesh.
# counted: in a trace.
Origin = Literal["computed", "simulated", "measured", "counted"]


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    columns: tuple[str, ...]  # the first one names the rows
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), f"{self.title}: a cell for every column"


@dataclass(frozen=True, slots=True)
class Figure:
    title: str
    svg: Markup
    legend: tuple[tuple[str, Markup], ...] = ()  # a name, and the attributes of its line


@dataclass(frozen=True, slots=True)
class Section:
    name: str  # of its anchor
    title: str
    origin: Origin
    findings: tuple[str, ...] = ()  # what the figures say, a sentence each
    notes: tuple[str, ...] = ()  # what they rest on
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    title: str
    about: str
    sections: tuple[Section, ...]
    assumptions: tuple[Assumption, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)  # plain values: seconds, shares from 0 to 1, counts


def number(value: float, digits: int = 3) -> str:
    """So many digits that count, none behind the point beyond that: 12,345 and 0.0123; – for what there is not."""
    if value != value:
        return "–"
    if value == float("inf"):
        return "∞"
    if not value:
        return "0"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".")


def milliseconds(value_s: float) -> str:
    return number(value_s * 1e3)


def percent(share: float, digits: int = 0) -> str:
    return "–" if share != share else f"{share * 100:.{digits}f} %"


def times(factor: float) -> str:
    return "–" if factor != factor else f"{number(factor)} ×"
