"""A waiting line, for workers or for encoders: a heap by the order's key. Suspects stand apart if they must run alone.

Leaving the line costs nothing: an entry whose ticket is no longer its job's is skipped when it comes up.
"""

import heapq
from collections.abc import Iterator

from headrace.core.ordering.base import Order, Standing
from headrace.core.queue.job import Job

_Heap = list[tuple[float, int, Job]]


class Line:
    __slots__ = ("_heap", "_order", "_size", "_suspects", "_tickets")

    def __init__(self, order: Order) -> None:
        self._order = order
        self._heap: _Heap = []
        self._suspects: _Heap = []
        self._tickets = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def push(self, job: Job, standing: Standing, *, apart: bool = False) -> None:
        assert not job.ticket, f"{job.key} stands in line already"
        self._tickets += 1
        job.ticket = self._tickets
        self._size += 1
        entry = (self._order.key(standing), job.ticket, job)
        heapq.heappush(self._suspects if apart else self._heap, entry)

    def leave(self, job: Job) -> None:
        assert job.ticket, f"{job.key} stands in no line"
        job.ticket = 0
        self._size -= 1
        if len(self._heap) + len(self._suspects) > 2 * self._size + 1024:
            self._sweep()

    def head(self) -> Job | None:
        return _first(self._heap)

    def first_suspect(self) -> Job | None:
        return _first(self._suspects)

    def first(self, limit: int) -> list[Job]:
        """The first in line, suspects among them where they would stand. Looks at everybody."""
        return [job for _, _, job in heapq.nsmallest(limit, self._entries())]

    def position(self, job: Job) -> int:
        """How many stand before it. Looks at everybody: for questions, not for dispatch."""
        own = next(entry for entry in self._entries() if entry[2] is job)
        return sum(entry[:2] < own[:2] for entry in self._entries())

    def _entries(self) -> Iterator[tuple[float, int, Job]]:
        for heap in (self._suspects, self._heap):
            yield from (entry for entry in heap if entry[2].ticket == entry[1])

    def _sweep(self) -> None:
        """Forget entries of those who left: memory stays in proportion to the line."""
        for heap in (self._heap, self._suspects):
            heap[:] = [entry for entry in heap if entry[2].ticket == entry[1]]
            heapq.heapify(heap)


def _first(heap: _Heap) -> Job | None:
    while heap:
        _, ticket, job = heap[0]
        if job.ticket == ticket:
            return job
        heapq.heappop(heap)
    return None
