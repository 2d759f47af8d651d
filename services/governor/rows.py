"""Which worker stands in which row, and what a row may take: HEADRACE_ROWS, or one row for all.

[[row]]
name = "row-0"
workers = ["prefill-*", "decode-1"]  # ids; * and ? stand for any; a worker is of the first row that names it
hosts = ["node-1?"]                  # or all workers of these machines
budget_w = 12000                     # optional; also the ones below
aisle = "a"                          # rows of one aisle share its air
air_m3s = 1.4                        # what the aisle gets for this row
opaque = ["tenant-*"]                # workers that are a tenant's own: they give way last
"""

import math
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from headrace.core.power.fleet import Row
from headrace.mesh.errors import BadSetup

ELSEWHERE = "elsewhere"  # of workers that no row names
KEYS = {"name": str, "workers": list, "hosts": list, "opaque": list, "budget_w": float, "aisle": str, "air_m3s": float}
ROWS_MAX = 1024


@dataclass(frozen=True, slots=True)
class Place:
    row: Row
    workers: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    opaque: tuple[str, ...] = ()

    def holds(self, worker: str, host: str) -> bool:
        return _any(worker, self.workers) or _any(host, self.hosts)


@dataclass(frozen=True, slots=True)
class Rows:
    places: tuple[Place, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(place.row for place in self.places)

    def of(self, worker: str, host: str) -> tuple[int, bool]:
        """The row's place, and whether the worker is a tenant's own."""
        at = next((at for at, place in enumerate(self.places) if place.holds(worker, host)), len(self.places) - 1)
        return at, _any(worker, self.places[at].opaque)


def one_row(budget_w: float = 0.0) -> Rows:
    return Rows((Place(Row("row-0", budget_w=budget_w), ("*",)),))


def read_rows(path: str, budget_w: float = 0.0) -> Rows:
    """budget_w: of rows that say none. Raises BadSetup: no such file, no TOML, or rows that make no sense."""
    try:
        told = tomllib.loads(Path(path).expanduser().read_text())
        places = [_place(at, one, budget_w) for at, one in enumerate(_tables(told))]
    except OSError as error:
        raise BadSetup(f"HEADRACE_ROWS={path!r}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError) as error:
        raise BadSetup(f"HEADRACE_ROWS={path!r}: {error}") from error
    names = [place.row.name for place in places]
    if twice := {name for name in names if names.count(name) > 1}:
        raise BadSetup(f"HEADRACE_ROWS={path!r}: more than one row is called {', '.join(sorted(twice))}")
    return Rows((*places, Place(Row(ELSEWHERE), ("*",))))


def _tables(told: dict[str, Any]) -> list[Any]:
    tables = told.get("row")
    if not isinstance(tables, list) or not tables or set(told) != {"row"}:
        raise ValueError("must be a list of [[row]] tables and nothing else")
    if len(tables) > ROWS_MAX:
        raise ValueError(f"{len(tables)} rows, {ROWS_MAX} at most")
    return tables


def _place(at: int, told: dict[str, Any], budget_w: float) -> Place:
    where = f"row {told.get('name') or at + 1}"
    for key, value in told.items():
        if key not in KEYS:
            raise ValueError(f"{where}: no setting {key}; there are {', '.join(KEYS)}")
        wanted = KEYS[key]
        number = wanted is float and isinstance(value, int | float) and not isinstance(value, bool)
        if not (number or isinstance(value, wanted)) or (wanted is list and not _texts(value)):
            raise ValueError(f"{where}: {key} = {value!r} is not {_WORDS[wanted]}")
        if number and not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{where}: {key} = {value!r} must be 0 (none) or above")
    name = told.get("name", "")
    if not name or name == ELSEWHERE:
        raise ValueError(f"row {at + 1}: must have a name, and not {ELSEWHERE!r}")
    if not told.get("workers") and not told.get("hosts"):
        raise ValueError(f"{where}: must name workers or hosts")
    row = Row(name, told.get("aisle", ""), float(told.get("budget_w", budget_w)), float(told.get("air_m3s", 0.0)))
    return Place(row, *(tuple(told.get(key, ())) for key in ("workers", "hosts", "opaque")))


_WORDS: dict[type, str] = {str: "a text", list: "a list of texts", float: "a number"}


def _texts(value: list[Any]) -> bool:
    return all(isinstance(one, str) for one in value)


def _any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
