"""In which order one worker takes what waits at it: as the mesh does, by arrival, by slack, or as what that is
compared with.

The mesh: encoders take what is due first, but nobody waits for ever behind those who are; what is to be prefilled has
been put in order by the queue manager.

ModServe (arXiv 2502.00937) orders what waits at an instance by modality and prompt size without giving a formula; the
slack is ours, as in core/ordering/least_slack.py.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Line = Literal["mesh", "fifo", "slack", "shortest", "random"]
GROWS_OLD_S = 60.0  # [I] three times what is promised to interactive requests


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request as the worker that it waits at sees it."""

    name: str
    seq: int  # in order of acceptance
    due_s: float  # when its first token is due
    alone_s: float  # what it takes here at least, its parts beside one another where they are at several workers
    work_s: float  # of all its work of this stage


def place(line: Line, waiting: Waiting) -> float:
    """Smaller goes first; it never changes while somebody waits."""
    return _PLACES[line](waiting)


def urgency(due_s: float, came_s: float) -> float:
    """A media part's place at an encoder. due_s: when its request's first token is due; 0: nobody says.

    What is due in an hour counts as due in a minute, so that it grows old: from then on it goes before whoever is due
    later than that.
    """
    grown_s = came_s + GROWS_OLD_S
    return min(due_s, grown_s) if due_s else grown_s


_PLACES: dict[Line, Callable[[Waiting], float]] = {
    "mesh": lambda waiting: float(waiting.seq),
    "fifo": lambda waiting: float(waiting.seq),
    "slack": lambda waiting: waiting.due_s - waiting.alone_s,  # when it must begin at the latest
    "shortest": lambda waiting: waiting.work_s,  # as who knows all would for the mean; nothing grows old
    "random": lambda waiting: float(zlib.crc32(waiting.name.encode())),
}
