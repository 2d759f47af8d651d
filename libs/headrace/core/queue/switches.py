"""What an operator may turn on and off while the queue manager runs: each is asked of the configuration at every use,
and whatever it has begun ends as it would have.

Not moves, pulls and model changes: where groups stand, and what workers were sent, follows from them. They are chosen
at the start. (Moves were tried: a group that was placed elsewhere has nobody to serve it once they are off.)
"""

from dataclasses import replace

from headrace.core.events import Switched
from headrace.core.queue.cell import Cell

ALWAYS = ("overlap", "early_rejection")
PLANNED = ("solve", "evict", "balance", "fair")  # of virtual queues: without a planner they mean nothing
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
