"""Who waits for the engine, who is in it, who leaves.

Room is accounted here, so that the engine is never asked for more than it has.
"""

from collections import deque
from dataclasses import dataclass

from headrace.worker.holds import Held


@dataclass(frozen=True, slots=True)
class Turn:
    """What an iteration changes in the engine before its step: first these leave, then those enter."""

    leaving: list[Held]
    entering: list[Held]


class Roster:
    """First come, first served: the head waits for room and nobody overtakes it."""

    def __init__(self, slots: int, blocks: int) -> None:
        self.slots_free = slots
        self.blocks_free = blocks
        self._ready: deque[Held] = deque()  # bounded by what Requests admits
        self._leaving: list[Held] = []

    def wait(self, held: Held) -> None:
        assert held.place == "outside"
        held.place = "ready"
        self._ready.append(held)

    def leave(self, held: Held) -> None:
        if held.place == "inside":
            self._leaving.append(held)
        elif held.place == "ready":
            self._ready.remove(held)
        held.place = "outside"

    def refused(self, held: Held) -> None:
        """The engine did not take it in after all."""
        if held.place == "outside":  # cancelled meanwhile
            self._leaving.remove(held)
        held.place = "outside"
        self._free(held)

    def has_turn(self) -> bool:
        return bool(self._leaving) or bool(self._ready and self._fits(self._ready[0]))

    def turn(self) -> Turn:
        leaving, self._leaving = self._leaving, []
        for held in leaving:
            self._free(held)
        entering = []
        while self._ready and self._fits(self._ready[0]):
            held = self._ready.popleft()
            held.place = "inside"
            self.slots_free -= 1
            self.blocks_free -= held.blocks
            entering.append(held)
        return Turn(leaving, entering)

    def _fits(self, held: Held) -> bool:
        return self.slots_free > 0 and held.blocks <= self.blocks_free

    def _free(self, held: Held) -> None:
        self.slots_free += 1
        self.blocks_free += held.blocks
