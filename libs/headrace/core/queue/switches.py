"""What an operator may turn on and off while the queue manager runs: each is asked of the configuration at every use,
and whatever it has begun ends as it would have. Loading models (swap) and pulling (pull) shape what already stands in
virtual queues and at workers: they are chosen at the start.
"""

from dataclasses import replace

from headrace.core.events import Switched
from headrace.core.queue.cell import Cell

ALWAYS = ("overlap", "early_rejection")
PLANNED = ("solve", "evict", "balance", "move", "fair")  # of virtual queues: without a planner they mean nothing
SWITCHES = (*PLANNED, *ALWAYS)


def switches(cell: Cell) -> dict[str, bool]:
    """Those that mean something here, as they stand."""
    names = SWITCHES if cell.virtual is not None else ALWAYS
    return {name: bool(getattr(cell.config, name)) for name in names}


def switched(cell: Cell, event: Switched, now_s: float) -> None:
    assert event.name in SWITCHES, f"nobody may switch {event.name!r} while it runs"
    cell.config = replace(cell.config, **{event.name: event.on})  # type: ignore[arg-type]
    if cell.virtual is not None:
        cell.virtual.fair = cell.config.fair
    cell.dirty = True
