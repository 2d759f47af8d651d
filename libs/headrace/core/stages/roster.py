"""Who waits for the engine, who is in it, who leaves: for live workers and simulated ones.

Room is accounted here, so that the engine is never asked for more than it has.
"""

from collections import deque
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

Place = Literal["outside", "ready", "inside"]  # of the engine; ready: waits for room in it


class Guest(Protocol):
    """What takes a slot and `blocks` KV blocks; its place is the roster's to change."""

    place: Place
    blocks: int


G = TypeVar("G", bound=Guest)


@dataclass(frozen=True, slots=True)
class Turn(Generic[G]):
    """What an iteration changes in the engine before its step: first these leave, then those enter."""

    leaving: list[G]
    entering: list[G]


class Roster(Generic[G]):
    """First come, first served: the head waits for room and nobody overtakes it."""

    def __init__(self, slots: int, blocks: int) -> None:
        self.slots_free = slots
        self.blocks_free = blocks
        self._ready: deque[G] = deque()  # bounded by what its owner admits
        self._leaving: list[G] = []

    def wait(self, guest: G) -> None:
        assert guest.place == "outside"
        guest.place = "ready"
        self._ready.append(guest)

    def leave(self, guest: G) -> None:
        if guest.place == "inside":
            self._leaving.append(guest)
        elif guest.place == "ready":
            self._ready.remove(guest)
        guest.place = "outside"

    def refused(self, guest: G) -> None:
        """The engine did not take it in after all."""
        if guest.place == "outside":  # cancelled meanwhile
            self._leaving.remove(guest)
        guest.place = "outside"
        self._free(guest)

    def has_turn(self) -> bool:
        return bool(self._leaving) or bool(self._ready and self._fits(self._ready[0]))

    def turn(self) -> Turn[G]:
        leaving, self._leaving = self._leaving, []
        for guest in leaving:
            self._free(guest)
        entering = []
        while self._ready and self._fits(self._ready[0]):
            guest = self._ready.popleft()
            guest.place = "inside"
            self.slots_free -= 1
            self.blocks_free -= guest.blocks
            entering.append(guest)
        return Turn(leaving, entering)

    def _fits(self, guest: G) -> bool:
        return self.slots_free > 0 and guest.blocks <= self.blocks_free

    def _free(self, guest: G) -> None:
        self.slots_free += 1
        self.blocks_free += guest.blocks
