"""What a page that has one state needs to have the next one. Pure: two snapshots in, one dict out."""

from collections.abc import Mapping
from typing import Any

# Sections that are lists of things with a name: only those that changed are sent.
KEYED = {"workers": "id", "queues": "worker", "groups": "id", "recent": "id", "actions": "key"}
# Of a first snapshot alone: the page goes on with the points that follow.
ONCE = ("history",)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Empty: nothing that a page shows has changed."""
    found: dict[str, Any] = {}
    for name, value in after.items():
        was = before.get(name)
        if name in ONCE or was == value:
            continue
        found[name] = _keyed(KEYED[name], was, value) if name in KEYED and was is not None else value
    return found


def _keyed(key: str, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> dict[str, Any]:
    """What is new or different, what is gone; `order` only where the rest with the new ones behind is not as it is."""
    had, has = {one[key]: one for one in before}, {one[key]: one for one in after}
    found: dict[str, Any] = {"set": [one for name, one in has.items() if had.get(name) != one]}
    gone = [name for name in had if name not in has]
    if gone:
        found["gone"] = gone
    told = [*[name for name in had if name in has], *[name for name in has if name not in had]]
    if told != list(has):
        found["order"] = list(has)
    return found
