"""Completion windows: how long a batch may take, and which SLO class its lines run in."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.core.slo import Classes
from headrace.mesh.errors import BadSetup

BUILT_IN = ("24h=batch-2", "1h=batch-1")
SECONDS_MAX = 86_400.0  # as long as the journal keeps a request
_FORM = re.compile(r"([1-9][0-9]{0,3})([smh])=(.+)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3_600.0}


@dataclass(frozen=True, slots=True)
class Window:
    name: str
    seconds: float
    slo_class: str


def windows_of(said: Sequence[str], classes: Classes) -> Mapping[str, Window]:
    """said: entries such as 24h=batch-2; none: the built-in ones, whose class is the default where theirs is unknown.

    Raises:
        BadSetup: naming the entry.
    """
    return {window.name: window for window in (_window(entry, classes, bool(said)) for entry in said or BUILT_IN)}


def _window(entry: str, classes: Classes, strict: bool) -> Window:
    found = _FORM.fullmatch(entry)
    if found is None:
        raise BadSetup(f"HEADRACE_BATCH_WINDOWS: {entry!r} is not like 24h=batch-2")
    number, unit, name = found.groups()
    seconds = int(number) * _SECONDS[unit]
    if seconds > SECONDS_MAX:
        raise BadSetup(f"HEADRACE_BATCH_WINDOWS: {entry!r} is longer than a day")
    if name not in classes.named:
        if strict:
            raise BadSetup(f"HEADRACE_BATCH_WINDOWS: {entry!r}: there is no SLO class {name!r}")
        name = classes.default
    return Window(f"{number}{unit}", seconds, name)
