"""Our own format: an Arrival's fields as JSON lines, or as CSV where there are no media. `save` writes the former.

CSV needs at_s (or arrival_s), input_tokens and output_tokens; max_tokens, slo_class, model and tenant may follow.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any

from headrace.workload.arrival import Arrival, Part
from headrace.workload.traces.base import BadRow, Clock, Place, Tally, answer, csv_rows, opened, whole
from headrace.workload.traces.lines import count, ids, json_rows, parsed, seconds, words

NAMES = ("slo_class", "model", "tenant")
TARGETS = ("ttft_s", "tbt_s")
COLUMNS = ("input_tokens", "output_tokens")
SPARE = ("at_s", "arrival_s", "max_tokens", *NAMES)
PART_FIELDS = frozenset(each.name for each in fields(Part))
ARRIVAL_FIELDS = frozenset(each.name for each in fields(Arrival))


@dataclass(frozen=True, slots=True)
class Headrace:
    """Times stay as they are. 0 input tokens are an error, or skipped with `skip_bad`; 0 output tokens become 1 and are
    told; a max_tokens below output_tokens is an error, 0 says nothing."""

    skip_bad: bool = False

    def read(self, path: Path, tally: Tally) -> Iterator[Arrival]:
        place = Place(path, tally, self.skip_bad)
        with opened(path) as text:
            first = text.readline()
            rows = chain([first], text)
            if not first or first.lstrip().startswith("{"):  # save() of no requests is an empty file
                yield from place.requests(json_rows(place, rows), lambda line: _from_line(line, tally))
            else:
                yield from place.requests(
                    csv_rows(place, rows, COLUMNS, SPARE), lambda cells: _from_cells(cells, place)
                )


def save(arrivals: Iterable[Arrival], path: Path) -> int:
    """JSON lines that Headrace reads back as they were; fields that say nothing are left out. How many there were."""
    number = 0
    with path.open("w", encoding="utf-8") as out:
        for arrival in arrivals:
            out.write(json.dumps(_said(asdict(arrival))) + "\n")
            number += 1
    return number


def _said(raw: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in raw.items() if value or name == "at_s"}
    if parts := kept.get("parts"):
        kept["parts"] = [{name: value for name, value in part.items() if value} for part in parts]
    return kept


def _from_line(line: str, tally: Tally) -> Arrival:
    raw = parsed(line)
    _only(raw, ARRIVAL_FIELDS)
    at_s, prompt = seconds(raw, "at_s"), count(raw, "input_tokens", least=1)
    output = answer(count(raw, "output_tokens"), tally)
    allowed = _allowed(count(raw, "max_tokens") if "max_tokens" in raw else 0, output)
    parts = tuple(_part(each) for each in _list(raw, "parts"))
    slo_class, model, tenant = (words(raw, name) for name in NAMES)
    ttft_s, tbt_s = (seconds(raw, name) if name in raw else 0.0 for name in TARGETS)
    return Arrival(
        at_s,
        prompt,
        output,
        parts,
        allowed,
        slo_class,
        model,
        tenant,
        ids(raw, "blocks"),
        ttft_s,
        tbt_s,
        _priority(raw),
        words(raw, "flow"),
    )


def _priority(raw: dict[str, Any]) -> int:
    value = raw.get("priority", 0)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRow("priority", "must be a whole number", value)
    return value


def _from_cells(cells: list[str], place: Place) -> Arrival:
    at_s = Clock("at_s").absolute(cells[2] or cells[3])
    prompt, output = whole(cells[0], "input_tokens", least=1), whole(cells[1], "output_tokens")
    output = answer(output, place.tally)
    allowed = _allowed(whole(cells[4], "max_tokens") if cells[4] else 0, output)
    return Arrival(at_s, prompt, output, (), allowed, cells[5], cells[6], cells[7])


def _part(raw: Any) -> Part:
    if not isinstance(raw, dict):
        raise BadRow("parts", "must be a list of objects", raw)
    _only(raw, PART_FIELDS)
    size = [count(raw, name) if name in raw else 0 for name in ("width", "height")]
    duration_s = seconds(raw, "duration_s") if "duration_s" in raw else 0.0
    tokens = count(raw, "tokens") if "tokens" in raw else 0
    return Part(words(raw, "modality") or "image", size[0], size[1], duration_s, tokens, words(raw, "content"))


def _list(raw: dict[str, Any], name: str) -> list[Any]:
    value = raw.get(name, [])
    if not isinstance(value, list):
        raise BadRow(name, "must be a list", value)
    return value


def _only(raw: dict[str, Any], known: frozenset[str]) -> None:
    for name in raw:
        if name not in known:
            raise BadRow(name, "is no field of a request; check its spelling")


def _allowed(max_tokens: int, output_tokens: int) -> int:
    if max_tokens and max_tokens < output_tokens:
        raise BadRow("max_tokens", f"must be at least output_tokens ({output_tokens})", max_tokens)
    return max_tokens
