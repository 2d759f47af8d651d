"""Pictures, sounds and videos that many requests ask about: some parts of a workload become ones of a small pool.

How often which one is asked for follows Zipf's law, as requests for web pages do (Breslau et al., INFOCOM 1999, with
exponents of 0.64 to 0.83 there); no public trace of multimodal requests says what its pictures are, so share, pool and
exponent are ours to set [I].
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from headrace.workload.arrival import Arrival, Part
from headrace.workload.tables import Count, NotNegative, Share

BLOCK = 4096  # random numbers drawn at once


@dataclass(frozen=True, slots=True)
class Repeats:
    share: Share = 0.0  # of all media parts; the others are asked about once
    pool: Count = 1_000  # different ones, for each modality
    zipf: NotNegative = 0.8  # the k-th most popular is asked for in proportion to 1 / k**zipf; 0: all alike

    def applied(self, arrivals: Iterable[Arrival], rng: Generator) -> Iterator[Arrival]:
        """In the arrivals' order. The first part of a content says its size: the others are the same file."""
        if not self.share:
            yield from arrivals
            return
        draws, known = self._draws(rng), dict[str, Part]()
        for arrival in arrivals:
            parts = tuple([self._part(part, next(draws), known) for part in arrival.parts])
            yield replace(arrival, parts=parts) if parts else arrival

    def _part(self, part: Part, rank: int, known: dict[str, Part]) -> Part:
        if rank < 0:
            return part
        name = f"{part.modality} {rank}"
        return known.setdefault(name, replace(part, content=name))

    def _draws(self, rng: Generator) -> Iterator[int]:
        """Ranks from 0; -1: one of its own."""
        edges = np.cumsum(np.arange(1, self.pool + 1) ** -self.zipf)
        edges /= edges[-1]
        while True:
            again, which = rng.random((2, BLOCK))
            ranks = np.minimum(np.searchsorted(edges, which, side="right"), self.pool - 1)
            yield from np.where(again < self.share, ranks, -1).tolist()
