"""How fast, and with which model, each serving instance runs: from a Pareto table, least change first.

Speed (frequency) is changed at once; precision and model size need a reload, so they wait until speed alone cannot do
it for a while, at most one reload in ten minutes. The rate of a speed is of the stages' mixture, which TAPAS has not:
prefill and encode are compute-bound, decode waits for memory and loses nothing down to its free speed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
HIGH, CALM = 0.95, 0.80  # [I] shares of a limit at which something must, and may, change
CALM_S = 60.0  # [I] that a row must be calm before it is given more
RELOAD_S = 600.0  # [I] between two reloads of an instance


@dataclass(frozen=True, slots=True)
class Config:
    """A way to run an instance; capacity and quality beside the best one's, at full speed."""

    name: str
    capacity: float
    dynamic: float  # power above idle at full load, beside the best one's
    quality: float


@dataclass(frozen=True, slots=True)
class Point:
    """A row of the table."""

    config: Config
    speed: float
    capacity: float
    dynamic: float
    quality: float


def rate(speed: float, prefill: float, decode_free: float) -> float:
    """Work done beside full speed, of which a share `prefill` of the time is compute-bound."""
    return 1.0 / (prefill / speed + (1.0 - prefill) / min(1.0, speed / decode_free))


def pareto(
    configs: Sequence[Config], speeds: Sequence[float], *, prefill: float, decode_free: float, exponent: float
) -> list[Point]:
    """Points that no other beats in capacity, power and quality at once; the best and fastest first."""
    every = [
        Point(
            config,
            speed,
            config.capacity * rate(speed, prefill, decode_free),
            config.dynamic * speed**exponent,
            config.quality,
        )
        for config in configs
        for speed in speeds
    ]
    kept = [one for one in every if not any(_beats(other, one) for other in every)]
    return sorted(kept, key=lambda point: (-point.quality, -point.capacity))


def _beats(one: Point, other: Point) -> bool:
    """As good everywhere, and better somewhere."""
    better = (one.capacity - other.capacity, other.dynamic - one.dynamic, one.quality - other.quality)
    return min(better) >= 0.0 and max(better) > 0.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Of one instance."""

    work: float  # that it should do, in the best config's capacity at full speed
    dynamic_most: float  # power above idle that it may draw, beside the best config's at full load
    quality_least: float


def choose(points: Sequence[Point], wanted: Wanted, now: int, *, may_reload: bool) -> int:
    """The point to run at, an index; `now` is where it runs.

    Among those within the power that do the work at the quality: the one that draws least. Where none does it: the one
    that does most. Nothing fits at all: the one that draws least.
    """
    reachable = [at for at, point in enumerate(points) if may_reload or point.config == points[now].config]
    good = [at for at in reachable if points[at].quality >= wanted.quality_least] or reachable
    fits = [at for at in good if _drawn(points[at], wanted.work) <= wanted.dynamic_most + 1e-9]
    if not fits:
        return min(good, key=lambda at: (points[at].dynamic, at))
    able = [at for at in fits if points[at].capacity >= wanted.work]
    if able:
        best = max(points[at].quality for at in able)
        return min(
            (at for at in able if points[at].quality == best), key=lambda at: (_drawn(points[at], wanted.work), at)
        )
    return max(fits, key=lambda at: (points[at].capacity, points[at].quality, -at))


def _drawn(point: Point, work: float) -> float:
    return point.dynamic * min(1.0, work / point.capacity)


@dataclass(slots=True)
class Hysteresis:
    """When a row's instances may change: at once when it is near a limit, after a calm minute when it is not."""

    calm_s: Floats  # [row]: since when it is calm; inf: it is not

    @classmethod
    def of(cls, rows: int) -> "Hysteresis":
        return cls(np.full(rows, np.inf))

    def look(self, risk: Floats, now_s: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Rows that must slow down, and rows that may speed up."""
        calm = risk < CALM
        self.calm_s = np.where(calm, np.minimum(self.calm_s, now_s), np.inf)
        return risk > HIGH, calm & (now_s - self.calm_s >= CALM_S)
