"""Time in the simulator: calls due at a moment, carried out in order. Ties go in the order in which they were made."""

import heapq
from collections.abc import Callable
from typing import Any


class Agenda:
    """The clock runs from call to call; nothing happens between two."""

    def __init__(self, start_s: float) -> None:
        self.now_s = start_s
        self.carried_out = 0
        self._due: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._made = 0

    def at(self, at_s: float, call: Callable[..., None], *args: Any) -> None:
        assert at_s >= self.now_s, f"{call} is {self.now_s - at_s} s late"
        self._made += 1
        heapq.heappush(self._due, (at_s, self._made, call, args))

    def after(self, delay_s: float, call: Callable[..., None], *args: Any) -> None:
        self.at(self.now_s + delay_s, call, *args)

    def run(self, until_s: float, over: Callable[[], bool]) -> None:
        """Until nothing is due, that moment has come, or it is over."""
        due, pop = self._due, heapq.heappop
        while due and not over():
            entry = pop(due)
            at_s, _, call, args = entry
            if at_s > until_s:
                heapq.heappush(due, entry)
                self.now_s = until_s
                return
            self.now_s = at_s
            self.carried_out += 1
            call(*args)
