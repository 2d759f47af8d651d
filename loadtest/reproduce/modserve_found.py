"""Rows of finished runs, found again by what they are of."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loadtest.reproduce.modserve_plan import Row

Grid = Mapping[Any, Sequence[Any]]  # a cell -> its jobs, in the order of the seeds


class Finished:
    def __init__(self, rows: Iterable[tuple[Any, Row]]) -> None:
        self._rows = dict(rows)

    def of(self, jobs: Sequence[Any]) -> list[Row]:
        """In the order of the jobs; those that failed are missing."""
        return [self._rows[job] for job in jobs if job in self._rows]


def flat(*grids: Grid) -> list[Any]:
    """Each job once, in order."""
    return list(dict.fromkeys(job for grid in grids for jobs in grid.values() for job in jobs))
