"""Draws where a request's time went: one line per interval, a bar on a common time axis.

Pure: intervals in, lines of text out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from headrace.core.types import PART_STAGES

_BAR_COLUMNS = 32


class Interval(Protocol):
    """A StageSpan of the wire or of the SDK."""

    @property
    def stage(self) -> str: ...
    @property
    def start_s(self) -> float: ...
    @property
    def end_s(self) -> float: ...
    @property
    def worker(self) -> str: ...
    @property
    def part(self) -> int: ...
    @property
    def cached(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Row:
    label: str
    worker: str
    start_ms: float
    took_ms: float
    bar: str


def rows(spans: Sequence[Interval], first_token_s: float | None = None) -> list[Row]:
    """Intervals by their start, parts in order; the gateway's, which is the whole, stands first.

    The first token is a moment: the end of the first prefill, unless given.
    """
    if not spans:
        return []
    ordered = sorted(spans, key=lambda span: (span.stage != "gateway", span.start_s, span.part, span.end_s))
    start_s = min(span.start_s for span in ordered)
    whole_s = max(1e-9, max(span.end_s for span in ordered) - start_s)
    parts = len({span.part for span in ordered if span.stage == "encode"})

    def row(label: str, worker: str, begin_s: float, end_s: float) -> Row:
        bar = _bar((begin_s - start_s) / whole_s, (end_s - start_s) / whole_s)
        return Row(label, worker, (begin_s - start_s) * 1e3, (end_s - begin_s) * 1e3, bar)

    out = []
    first_s = first_token_s if first_token_s is not None else _first_prefill_end_s(ordered)
    for span in ordered:
        stage = "cached" if span.cached else span.stage  # an embedding that was there: nothing was encoded
        label = f"{stage} {span.part}" if parts > 1 and span.stage in PART_STAGES else stage
        out.append(row(label, span.worker, span.start_s, span.end_s))
        if span.stage == "prefill" and first_s is not None:
            out.append(row("first token", "", first_s, first_s))
            first_s = None
    return out


def _first_prefill_end_s(ordered: Sequence[Interval]) -> float | None:
    return next((span.end_s for span in ordered if span.stage == "prefill"), None)


def _bar(begin: float, end: float) -> str:
    """begin and end as shares of the whole: at least one cell, so that a short interval is seen."""
    first = min(_BAR_COLUMNS - 1, int(begin * _BAR_COLUMNS))
    cells = max(1, round((end - begin) * _BAR_COLUMNS))
    return " " * first + "▇" * min(cells, _BAR_COLUMNS - first)


def lines(spans: Sequence[Interval], first_token_s: float | None = None) -> list[str]:
    return [
        f"{row.label:<13} {row.worker:<11} {row.start_ms:8.1f} ms  +{row.took_ms:8.1f} ms  {row.bar}".rstrip()
        for row in rows(spans, first_token_s)
    ]
