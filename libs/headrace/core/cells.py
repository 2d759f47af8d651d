"""Which of many cells gets a request: what a door knows of each cell, and how requests are spread.

A door hears each cell's status now and then and counts what it has sent there since: between two statuses its own
requests are all that it knows of. It decides alike in a live mesh and in the simulator.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

STALE_S = 1.5  # statuses come every 0.25 s; six that are missing are no accident
ROOM_LEAST = 0.02  # [I] of its slots, that a full cell counts with
REST_S = 1.0  # a cell that did not answer is not asked for so long, unless it is all there is


@dataclass(frozen=True, slots=True)
class CellSight:
    """A cell as its last status told it."""

    name: str
    slots: int  # sequences that its decode workers hold at once
    open: int  # requests accepted and not ended
    wait_s: float = 0.0  # expected of a request that comes now, until its first token; no estimate: 0
    models: frozenset[str] = frozenset()  # that it serves


@dataclass(slots=True)
class Known:
    """What a door knows of a cell."""

    sight: CellSight
    heard_s: float
    sent: int = 0  # by this door since that status
    rests_until_s: float = float("-inf")

    @property
    def load(self) -> float:
        """Requests for each slot: more than 1 wait."""
        return (self.sight.open + self.sent) / max(1, self.sight.slots)

    @property
    def room(self) -> float:
        """Slots that are free; where none is, a little all the same: somebody has to be asked."""
        return max(ROOM_LEAST * self.sight.slots, float(self.sight.slots - self.sight.open - self.sent))


Spread = Callable[[Sequence[Known], int, float], Sequence[Known]]


def by_room(cells: Sequence[Known], turn: int, draw: float) -> Sequence[Known]:
    """At random, in proportion to free slots: a full cell gets little, and no cell gets a bunch of requests at once."""
    return _drawn(cells, [cell.room for cell in cells], draw)


def at_random(cells: Sequence[Known], turn: int, draw: float) -> Sequence[Known]:
    """In proportion to their slots, whatever waits there."""
    return _drawn(cells, [float(cell.sight.slots) for cell in cells], draw)


def _drawn(cells: Sequence[Known], weights: Sequence[float], draw: float) -> Sequence[Known]:
    """The one that the draw falls on, the others behind it in their order."""
    left = draw * sum(weights)
    for at, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return [*cells[at:], *cells[:at]]
    return cells


def round_robin(cells: Sequence[Known], turn: int, draw: float) -> Sequence[Known]:
    at = turn % len(cells)
    return [*cells[at:], *cells[:at]]


def least_wait(cells: Sequence[Known], turn: int, draw: float) -> Sequence[Known]:
    """The least expected wait of the last status, and nothing else: all doors send to one cell until the next."""
    return sorted(at_random(cells, turn, draw), key=lambda cell: cell.sight.wait_s)


def least_load(cells: Sequence[Known], turn: int, draw: float) -> Sequence[Known]:
    """The fewest requests for each slot, what was sent since the status among them. Of equals, one at random. Several
    doors fill the same cell until they hear of it: requests come there in bunches, and wait for its encoders."""
    return sorted(at_random(cells, turn, draw), key=lambda cell: cell.load)


def two_choices(cells: Sequence[Known], turn: int, draw: float) -> Sequence[Known]:
    """The less loaded of two drawn at random (Mitzenmacher 2001): many doors do not all run to the same cell."""
    ordered = at_random(cells, turn, draw)
    if len(ordered) < 2:
        return ordered
    other = 1 + zlib.crc32(turn.to_bytes(8, "little")) % (len(ordered) - 1)
    pair = sorted((ordered[0], ordered[other]), key=lambda cell: cell.load)
    return [*pair, *(cell for cell in ordered if cell not in pair)]


SPREADS: Mapping[str, Spread] = {
    "by-room": by_room,
    "least-load": least_load,
    "two-choices": two_choices,
    "least-wait": least_wait,
    "round-robin": round_robin,
    "random": at_random,
}


@dataclass(slots=True)
class Door:
    """One door's books of the cells behind it."""

    spread: Spread = by_room
    stale_s: float = STALE_S
    cells: dict[str, Known] = field(default_factory=dict)
    _turn: int = 0

    def heard(self, sight: CellSight, now_s: float) -> None:
        known = self.cells.get(sight.name)
        if known is None:
            self.cells[sight.name] = Known(sight, now_s)
        else:
            known.sight, known.heard_s, known.sent = sight, now_s, 0

    def failed(self, name: str, now_s: float) -> None:
        """It did not answer."""
        if name in self.cells:
            self.cells[name].rests_until_s = now_s + REST_S

    def sent(self, name: str) -> None:
        if name in self.cells:
            self.cells[name].sent += 1

    def there(self, now_s: float) -> list[Known]:
        """Cells heard of late, by name."""
        return [self.cells[name] for name in sorted(self.cells) if now_s - self.cells[name].heard_s <= self.stale_s]

    def order(self, model: str, draw: float, now_s: float) -> list[str]:
        """Cells that serve the model, the best first, those that rest last; empty: none is heard that does.

        model: empty, any. draw: from 0 up to 1, anew for each request.
        """
        serving = [known for known in self.there(now_s) if not model or model in known.sight.models]
        if not serving:
            return []
        self._turn += 1
        ordered = self.spread(serving, self._turn, draw)
        return [known.sight.name for known in sorted(ordered, key=lambda known: known.rests_until_s > now_s)]


def home(names: Sequence[str], key: str) -> str:
    """The cell of whatever must be found again by its key: highest random weight (Thaler and Ravishankar 1998). A cell
    that leaves moves its own keys alone."""
    assert names, "no cells"
    return max(names, key=lambda name: (zlib.crc32(f"{name}/{key}".encode()), name))
