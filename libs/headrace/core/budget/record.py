"""What a governor publishes beside the policy, for players that have to go on without it: what it saw of each row last.

JSON, small, written anew in every epoch. Whatever stands there can only lower what a worker draws.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from headrace.core.budget.policy import BadPolicy

BYTES_MAX = 4 << 20
ROWS_MAX = 1024


@dataclass(frozen=True, slots=True)
class RowPlay:
    workers: tuple[str, ...]
    headroom: int  # class
    classes: tuple[int, ...]  # of each player's load
    full_w: tuple[float, ...]  # of each player
    limit_w: float  # that players share


@dataclass(frozen=True, slots=True)
class Play:
    version: str  # of the policy that it belongs to
    rows: Mapping[str, RowPlay]

    def of(self, worker: str) -> RowPlay | None:
        return next((row for row in self.rows.values() if worker in row.workers), None)

    def to_bytes(self) -> bytes:
        told = {name: asdict(row) for name, row in self.rows.items()}
        return json.dumps({"version": self.version, "rows": told}).encode()

    @staticmethod
    def from_bytes(data: bytes) -> "Play":
        """Raises BadPolicy."""
        if len(data) > BYTES_MAX:
            raise BadPolicy(f"play: {len(data)} bytes, {BYTES_MAX} are allowed")
        try:
            told = json.loads(data)
            rows = {str(name): _row(row) for name, row in list(told["rows"].items())[:ROWS_MAX]}
            return Play(str(told["version"]), rows)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BadPolicy(f"play: {error!r}") from error


def _row(told: Mapping[str, object]) -> RowPlay:
    workers, classes, full, limit = told["workers"], told["classes"], told["full_w"], told["limit_w"]
    if not (isinstance(workers, list) and isinstance(classes, list) and isinstance(full, list)):
        raise ValueError("lists of workers, classes and watts")
    if not isinstance(limit, int | float) or not isinstance(told["headroom"], int):
        raise ValueError("a limit and a class")
    return RowPlay(tuple(map(str, workers)), told["headroom"], _whole(classes), _watts(full), _watts([limit])[0])


def _whole(values: Sequence[object]) -> tuple[int, ...]:
    if not all(isinstance(value, int) and value >= 0 for value in values):
        raise ValueError("classes are whole numbers")
    return tuple(int(value) for value in values if isinstance(value, int))


def _watts(values: Sequence[object]) -> tuple[float, ...]:
    found = tuple(float(value) for value in values if isinstance(value, int | float))
    if len(found) != len(values) or not all(math.isfinite(value) and value >= 0.0 for value in found):
        raise ValueError("watts are numbers, 0 or above")
    return found
