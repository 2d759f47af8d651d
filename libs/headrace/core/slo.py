"""SLO classes: one definition for gateway, queue, planner and governor, and the limits of what a request may ask.

Targets are those of QLM (arXiv 2407.00047): interactive 20 s, batch-1 60 s, batch-2 3600 s to the first token.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

# Each step of priority halves the time in which a request wants its first token, so that none starves the others.
PRIORITY_LEAST, PRIORITY_MOST = -3, 3
# What a request may ask for itself: below, no queue could order anything; above, no deadline reaches.
TTFT_S_MIN, TTFT_S_MAX = 0.05, 86_400.0
TBT_S_MIN, TBT_S_MAX = 0.001, 60.0
TIMEOUT_S_MAX = 7 * 86_400.0
CLASSES_MAX = 64  # each is a label of several metrics
QUEUE_LIMIT_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class SloClass:
    """A promise: the first token within ttft_s of acceptance, for as many requests as may wait at once."""

    name: str
    ttft_s: float
    timeout_s: float  # the deadline of a request that names none
    queue_limit: int  # waiting requests; beyond it new ones are refused
    tbt_s: float = 0.0  # between two tokens, on average over an answer; 0: nothing is promised
    ttl_s: float = 0.0  # a request that has waited so long for its first token is given back (429); 0: never
    refuse_s: float = 0.0  # a request whose first token is expected later is refused at the door; 0: later than ttft_s


# Queue limits come from memory: a waiting request costs about 40 bytes per prompt token in the queue manager, so all
# classes full of 1,000-token prompts stay near 1.2 GB.
CLASSES: dict[str, SloClass] = {
    slo.name: slo
    for slo in (
        SloClass("interactive", ttft_s=20.0, timeout_s=120.0, queue_limit=4_096, ttl_s=90.0),
        SloClass("batch-1", ttft_s=60.0, timeout_s=600.0, queue_limit=8_192, ttl_s=400.0),
        SloClass("batch-2", ttft_s=3_600.0, timeout_s=7_200.0, queue_limit=16_384, ttl_s=7_000.0),
    )
}
DEFAULT_CLASS = "interactive"


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes that a request may name, and the one of a request that names none."""

    named: Mapping[str, SloClass]
    default: str = DEFAULT_CLASS

    def get(self, name: str) -> SloClass | None:
        """The class of that name, the default for an empty name, None for an unknown one."""
        return self.named.get(name or self.default)


BUILT_IN = Classes(CLASSES)


class BadClasses(ValueError):
    """A description of classes that makes no sense; key says where, from the top down."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key


_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
# Least and most of each number; 0 beside that means "none" where it is the field's default.
_RANGES: dict[str, tuple[float, float]] = {
    "ttft_s": (TTFT_S_MIN, TTFT_S_MAX),
    "timeout_s": (TTFT_S_MIN, TIMEOUT_S_MAX),
    "queue_limit": (1, QUEUE_LIMIT_MAX),
    "tbt_s": (TBT_S_MIN, TBT_S_MAX),
    "ttl_s": (TTFT_S_MIN, TIMEOUT_S_MAX),
    "refuse_s": (TTFT_S_MIN, TIMEOUT_S_MAX),
}
_NONE_IS_ZERO = frozenset(field.name for field in fields(SloClass) if field.default == 0.0)


def classes_of(raw: Mapping[str, Any]) -> Classes:
    """What a file says: a table `classes.NAME` for each class, and `default`, the name of one of them.

    The classes are those of the file alone. One that is built in may say only what is different; any other says its
    ttft_s, timeout_s and queue_limit.

    Raises:
        BadClasses: naming the key.
    """
    _only_known(raw, ("classes", "default"), "")
    tables = raw.get("classes")
    if not isinstance(tables, Mapping) or not tables:
        raise BadClasses("classes", "at least one table [classes.NAME] is needed")
    if len(tables) > CLASSES_MAX:
        raise BadClasses("classes", f"{len(tables)} classes; at most {CLASSES_MAX}")
    named = {name: _class_of(name, table) for name, table in tables.items()}
    default = raw.get("default", DEFAULT_CLASS)
    if not isinstance(default, str) or default not in named:
        said = f"{default!r} is" if "default" in raw else f"is missing, and {default!r} is"
        raise BadClasses("default", f"{said} none of {', '.join(named)}")
    return Classes(named, default)


def _class_of(name: str, table: Any) -> SloClass:
    key = f"classes.{name}"
    if not _NAME.fullmatch(name):
        raise BadClasses(key, "a name has 1 to 63 lower-case letters, digits, '.', '_' and '-'")
    if not isinstance(table, Mapping):
        raise BadClasses(key, "is not a table")
    _only_known(table, _RANGES, f"{key}.")
    said = {field: _number(field, value, f"{key}.{field}") for field, value in table.items()}
    built_in = CLASSES.get(name)
    values = {field: getattr(built_in, field) for field in _RANGES} | said if built_in is not None else said
    if missing := [field for field in _RANGES if field not in values and field not in _NONE_IS_ZERO]:
        raise BadClasses(f"{key}.{missing[0]}", f"is missing; only {', '.join(CLASSES)} have values of their own")
    slo = SloClass(name, **values)
    if slo.ttft_s > slo.timeout_s:
        raise BadClasses(f"{key}.ttft_s", f"{slo.ttft_s:g} is above the timeout_s of {slo.timeout_s:g}")
    return slo


def _only_known(table: Mapping[str, Any], known: Mapping[str, Any] | tuple[str, ...], prefix: str) -> None:
    for key in table:
        if key not in known:
            raise BadClasses(f"{prefix}{key}", f"is not known; there are {', '.join(known)}")


def _number(field: str, value: Any, key: str) -> Any:
    whole = field == "queue_limit"
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise BadClasses(key, f"{value!r} is not a {'whole ' if whole else ''}number")
    if value == 0 and field in _NONE_IS_ZERO:
        return 0.0
    least, most = _RANGES[field]
    if not least <= value <= most:
        raise BadClasses(key, f"is {value}; it must be from {least:g} to {most:.0f}")
    return value if whole else float(value)


def ttft_clamped_s(wanted_s: float) -> float:
    """What a request gets that wants its first token within so long. 0 stays 0: its class's own target."""
    return _clamped(wanted_s, TTFT_S_MIN, TTFT_S_MAX)


def tbt_clamped_s(wanted_s: float) -> float:
    """The same between two tokens."""
    return _clamped(wanted_s, TBT_S_MIN, TBT_S_MAX)


def priority_clamped(wanted: int) -> int:
    return min(max(wanted, PRIORITY_LEAST), PRIORITY_MOST)


def effective_target_s(ttft_s: float, priority: int) -> float:
    """Each step of priority halves the time in which the first token is wanted."""
    return ttft_s * 2.0**-priority


def _clamped(wanted_s: float, least_s: float, most_s: float) -> float:
    assert not math.isnan(wanted_s), "refused before"
    return min(max(wanted_s, least_s), most_s) if wanted_s else 0.0
