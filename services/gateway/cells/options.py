"""A door's own settings, from HEADRACE_CELLS_*; a bad value names its variable.

The file is TOML: `[[cell]]` with `name`, as the cell tells its status, and `url` of its gateways.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.core.cells import SPREADS
from headrace.mesh.errors import BadSetup

CELLS_MAX = 256


@dataclass(frozen=True, slots=True)
class Options:
    urls: Mapping[str, str]  # of each cell's gateways, by the cell's name
    spread: str = "by-room"

    @staticmethod
    def from_env(env: Mapping[str, str]) -> "Options":
        path, spread = env.get("HEADRACE_CELLS_FILE", "").strip(), env.get("HEADRACE_CELLS_SPREAD", "").strip()
        if not path:
            raise BadSetup("HEADRACE_CELLS_FILE is missing: a door needs to know where its cells are")
        if spread and spread not in SPREADS:
            raise BadSetup(f"HEADRACE_CELLS_SPREAD={spread!r}: must be one of {', '.join(SPREADS)}")
        return Options(_read(path), spread or "by-room")


def _read(path: str) -> dict[str, str]:
    try:
        raw = tomllib.loads(Path(path).read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSetup(f"HEADRACE_CELLS_FILE={path!r}: {error}") from error
    cells = raw.get("cell", [])
    if set(raw) - {"cell"} or not isinstance(cells, list) or not 0 < len(cells) <= CELLS_MAX:
        raise BadSetup(f"HEADRACE_CELLS_FILE={path!r}: want [[cell]] tables, 1 to {CELLS_MAX}, and nothing else")
    found: dict[str, str] = {}
    for cell in cells:
        if (
            not isinstance(cell, dict)
            or set(cell) != {"name", "url"}
            or not all(isinstance(v, str) for v in cell.values())
        ):
            raise BadSetup(f"HEADRACE_CELLS_FILE={path!r}: each [[cell]] has a name and a url")
        if not cell["url"].startswith(("http://", "https://")) or cell["name"] in found:
            raise BadSetup(f"HEADRACE_CELLS_FILE={path!r}: {cell['name']}: one entry, with an http(s) url")
        found[cell["name"]] = cell["url"].rstrip("/")
    return found
