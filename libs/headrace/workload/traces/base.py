"""What every trace format needs: errors that name file, row and column, a tally of odd rows, rows in order of time.

Everything streams: a week of rows passes through a window of bounded size.
"""

import csv
import gzip
import heapq
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import IO, TypeVar

from headrace.workload.arrival import Arrival

# How far rows may stand out of order; sorting more than this belongs into a tool for files.
REORDER_ROWS = 4096

Row = TypeVar("Row")


class TraceError(ValueError):
    """A trace that cannot be read: the message names file, row and column and says what was expected."""


class TraceWarning(UserWarning):
    """Rows were mended or skipped; the message counts them by reason."""


@dataclass(slots=True)
class Tally:
    """What became of a trace's rows. `mended` rows are in the workload, `skipped` ones are not; both by reason."""

    rows: int = 0
    mended: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        told = [f"{n} mended ({reason})" for reason, n in self.mended.items()]
        told += [f"{n} skipped ({reason})" for reason, n in self.skipped.items()]
        return f"{self.rows} rows" + "".join(f", {each}" for each in told)


class BadRow(ValueError):
    """Why a row is no request; `Place` turns it into a TraceError, or into a count where bad rows may be skipped."""

    def __init__(self, column: str, reason: str, value: object = None) -> None:
        shown = "" if value is None else f", is {str(value)[:40]!r}"
        super().__init__(f"column {column}: {reason}{shown}")
        self.short = f"{column}: {reason}"


@dataclass(slots=True)
class Place:
    """Where a reader is, and what it does with what it finds there."""

    path: Path
    tally: Tally
    skip_bad: bool
    row: int = 0  # as an editor counts lines, the header included

    def requests(self, rows: Iterable[Row], parse: Callable[[Row], Arrival | None]) -> Iterator[Arrival]:
        """Each row's request, in order of time; a bad row is counted and skipped, or raises TraceError.

        None from `parse` is a row that the format leaves out, and has counted."""
        return in_order(self._parsed(rows, parse), self)

    def _parsed(self, rows: Iterable[Row], parse: Callable[[Row], Arrival | None]) -> Iterator[Arrival]:
        for row in rows:
            self.tally.rows += 1
            try:
                arrival = parse(row)
            except BadRow as bad:
                if not self.skip_bad:
                    raise self.error(f"{bad}; skip_bad leaves such rows out") from bad
                self.tally.skipped[bad.short] += 1
                continue
            if arrival is not None:
                yield arrival

    def error(self, what: str) -> TraceError:
        return TraceError(f"{self.path.name} row {self.row}: {what}")


@contextmanager
def opened(path: Path) -> Iterator[IO[str]]:
    """A text file, gzipped or not: told by its first bytes, not by its name."""
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rt", encoding="utf-8") if zipped else path.open(encoding="utf-8") as text:
            yield text
    except (OSError, EOFError, zlib.error) as error:
        raise TraceError(f"{path.name}: cannot be read: {error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{path.name}: not text: {error}") from error


def csv_rows(
    place: Place, text: Iterable[str], columns: Sequence[str], spare: Sequence[str] = ()
) -> Iterator[list[str]]:
    """The cells of the named columns, in that order, of each row; `spare` columns may be missing (their cell is "").

    Names are compared without case. Columns that are not named are ignored. Raises TraceError: a column is missing.
    """
    reader = csv.reader(text)
    place.row = 1
    header = [name.strip().lstrip("\ufeff").lower() for name in next(reader, [])]
    missing = [name for name in columns if name.lower() not in header]
    if missing:
        raise place.error(f"no column {', '.join(missing)}; the header has {', '.join(header) or 'nothing'}")
    picks = [header.index(name.lower()) if name.lower() in header else -1 for name in (*columns, *spare)]
    most = max(picks)
    for cells in reader:
        place.row = reader.line_num
        if not cells:
            continue
        if len(cells) <= most:
            cells.extend([""] * (most + 1 - len(cells)))
        yield [cells[i] if i >= 0 else "" for i in picks]


def whole(text: str, column: str, least: int = 0) -> int:
    """A count. Raises BadRow: missing, no whole number, or below `least`."""
    try:
        number = int(text)
    except ValueError:
        number = _integral(text, column)
    if number < least:
        raise BadRow(column, f"must be at least {least}", text)
    return number


def _integral(text: str, column: str) -> int:
    if not text.strip():
        raise BadRow(column, "is missing")
    value = number(text, column)
    if value != int(value):
        raise BadRow(column, "must be a whole number", text)
    return int(value)


def number(text: str, column: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise BadRow(column, "must be a number" if text.strip() else "is missing", text or None) from None
    if not math.isfinite(value):
        raise BadRow(column, "must be finite", text)
    return value


def answer(tokens: int, tally: Tally) -> int:
    """Output tokens as the model says them: an empty answer becomes 1 token, since its end is one, and is told."""
    if tokens:
        return tokens
    tally.mended["0 output tokens, taken as 1"] += 1
    return 1


class Clock:
    """Seconds since the first row, from dates and times with or without a zone, or from plain seconds."""

    def __init__(self, column: str, unit_s: float = 1.0) -> None:
        self._column = column
        self._unit_s = unit_s
        self._first: datetime | float | None = None

    def _stamp(self, text: str) -> datetime | float:
        """A number first: 8 digits would also be a date."""
        try:
            return float(text) * self._unit_s
        except ValueError:
            pass
        try:
            return datetime.fromisoformat(text.strip())
        except ValueError:
            raise BadRow(self._column, "must be a date and time or seconds", text) from None

    def absolute(self, text: str) -> float:
        """Plain seconds, whatever the first row says."""
        return number(text, self._column) * self._unit_s

    def seconds(self, text: str) -> float:
        stamp = self._stamp(text)
        if self._first is None:
            self._first = stamp
        if isinstance(stamp, datetime):
            if isinstance(self._first, datetime) and (stamp.tzinfo is None) == (self._first.tzinfo is None):
                return (stamp - self._first).total_seconds()
        elif isinstance(self._first, float):
            return stamp - self._first
        raise BadRow(self._column, "is written in another way than the first row's", text)


def in_order(arrivals: Iterable[Arrival], place: Place) -> Iterator[Arrival]:
    """Rows sorted through a window of REORDER_ROWS, the first at 0 or later; at one time they keep the file's order.

    Raises TraceError: a row stands farther out of order.
    """
    heap: list[tuple[float, int, Arrival]] = []
    begun, last_s, shift_s = False, -math.inf, 0.0

    def out() -> Arrival:
        nonlocal begun, last_s, shift_s
        at_s, _, arrival = heapq.heappop(heap)
        if not begun:
            begun, shift_s = True, max(-at_s, 0.0)
        if at_s < last_s:
            raise place.error(f"goes back in time by more than {REORDER_ROWS} rows; sort the file by time first")
        last_s = at_s
        return replace(arrival, at_s=at_s + shift_s) if shift_s else arrival

    for order, arrival in enumerate(arrivals):
        heapq.heappush(heap, (arrival.at_s, order, arrival))
        if len(heap) > REORDER_ROWS:
            yield out()
    while heap:
        yield out()
