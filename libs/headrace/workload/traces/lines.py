"""Rows that are JSON lines: one object a line, its fields taken by name and type.

What is wrong with a field is a BadRow that names it.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from headrace.workload.traces.base import BadRow, Place


def json_rows(place: Place, text: Iterable[str]) -> Iterator[str]:
    for place.row, line in enumerate(text, 1):
        if line.strip():
            yield line


def parsed(line: str) -> dict[str, Any]:
    try:
        raw = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadRow("(line)", "must be JSON", error) from None
    if not isinstance(raw, dict):
        raise BadRow("(line)", "must be a JSON object", line)
    return raw


def count(raw: dict[str, Any], name: str, least: int = 0) -> int:
    value = raw.get(name)
    if value is None:
        raise BadRow(name, "is missing")
    if type(value) is not int or value < least:
        raise BadRow(name, f"must be a whole number of at least {least}", value)
    return value


def seconds(raw: dict[str, Any], name: str) -> float:
    value = raw.get(name)
    if value is None:
        raise BadRow(name, "is missing")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise BadRow(name, "must be a number of at least 0", value)
    return float(value)


def ids(raw: dict[str, Any], name: str) -> tuple[int, ...]:
    value = raw.get(name) or []
    if not isinstance(value, list) or not all(type(each) is int for each in value):
        raise BadRow(name, "must be a list of whole numbers", value)
    return tuple(value)


def words(raw: dict[str, Any], name: str) -> str:
    value = raw.get(name, "")
    if not isinstance(value, str):
        raise BadRow(name, "must be a text", value)
    return value
