"""A machine that serves jobs in the order of their keys, without the released simulator's biases.

Nobody is interrupted, nobody waits while a place is free, and every policy's batches wait alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from headrace.core.lengths import Prediction
from headrace.core.ordering import Order, Standing
from headrace.core.types import Prompt, Request, Sampling

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Served:
    """One a job, in order of arrival."""

    start_s: Floats
    end_s: Floats


def keys(order: Order, arrival_s: Floats, predictions: Sequence[Prediction]) -> list[float]:
    """What the order says of each job when it joins the line."""
    return [
        order.key(Standing(_request(seq, at_s), seq, at_s, 0.0, lambda said=said: said))  # type: ignore[misc]
        for seq, (at_s, said) in enumerate(zip(arrival_s.tolist(), predictions, strict=True))
    ]


def _request(seq: int, at_s: float) -> Request:
    """Prompts take the same time for everybody in this model: theirs is empty."""
    return Request(str(seq), "", "", "", at_s, at_s + 1e9, Prompt(()), (), Sampling(1), "")


def slots(arrival_s: Floats, exec_s: Floats, key: Sequence[float], places: int) -> Served:
    """`places` jobs at a time, each for its own duration: a freed place goes to the smallest key that waits.

    One place is no batching, several are continuous batching in which a batch costs no more than a job.
    """
    line = _Line(arrival_s, key)
    start_s, end_s = np.full(len(arrival_s), np.nan), np.full(len(arrival_s), np.nan)
    busy: list[float] = []  # when each taken place is free again
    now_s = 0.0
    while line.left:
        now_s = max(now_s, busy[0]) if len(busy) == places else now_s
        now_s = line.admit(now_s)
        while busy and busy[0] <= now_s:
            heappop(busy)
        row = line.pop()
        start_s[row], end_s[row] = now_s, now_s + exec_s[row]
        heappush(busy, float(end_s[row]))
    return Served(start_s, end_s)


def batches(arrival_s: Floats, exec_s: Floats, key: Sequence[float], size: int, wait_s: float = 0.0) -> Served:
    """A batch of up to `size` runs for its longest job; it begins when full, or its oldest has waited `wait_s`."""
    line = _Line(arrival_s, key)
    start_s, end_s = np.full(len(arrival_s), np.nan), np.full(len(arrival_s), np.nan)
    now_s = 0.0
    while line.left:
        now_s = line.admit(now_s)
        due_s = line.oldest_s() + wait_s
        while len(line) < size and line.next_s <= due_s:
            now_s = line.admit(max(now_s, line.next_s))
        if len(line) < size:
            now_s = max(now_s, due_s)
        rows = [line.pop() for _ in range(min(size, len(line)))]
        start_s[rows] = now_s
        now_s += float(exec_s[rows].max())
        end_s[rows] = now_s
    return Served(start_s, end_s)


class _Line:
    """Jobs that have arrived and wait; ties go by arrival."""

    def __init__(self, arrival_s: Floats, key: Sequence[float]) -> None:
        assert len(arrival_s) == len(key)
        self._arrival_s = arrival_s.tolist()
        self._key = key
        self._heap: list[tuple[float, int]] = []
        self._waits: set[int] = set()
        self._oldest = 0  # no row before it waits
        self._coming = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def left(self) -> bool:
        return bool(self._heap) or self._coming < len(self._key)

    @property
    def next_s(self) -> float:
        """Of the next arrival; inf after the last."""
        return float(self._arrival_s[self._coming]) if self._coming < len(self._key) else float("inf")

    def oldest_s(self) -> float:
        while self._oldest not in self._waits:
            self._oldest += 1
        return float(self._arrival_s[self._oldest])

    def admit(self, now_s: float) -> float:
        """All that have come; where nobody waits, the clock moves on to the next arrival first."""
        if not self._heap:
            now_s = max(now_s, self.next_s)
        while self.next_s <= now_s:
            heappush(self._heap, (self._key[self._coming], self._coming))
            self._waits.add(self._coming)
            self._coming += 1
        return now_s

    def pop(self) -> int:
        row = heappop(self._heap)[1]
        self._waits.discard(row)
        return row
