"""Where a new instance or tenant goes: within the limits at the weekly peak of all templates, then by preference.

Hard (the validator): the row's power and the aisle's airflow at every hour of the week, the GPUs' temperature on the
hottest day. Soft: rows and aisles that have few of its kind (opaque tenants cannot be slowed, so those that can must
stand everywhere), hot-running ones on cool servers and others on warm ones, then the lowest peak of the row's power.
TAPAS, section 1c of the spec; the weights are ours.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]
Kind = Literal["opaque", "serving"]
KINDS: tuple[Kind, ...] = ("opaque", "serving")
MATCH_WEIGHT = 0.25  # [I] of the thermal match, beside 1 for balance and 1 for the row's peak
MARGIN_C = 1.0  # [I] of the GPUs' limit


@dataclass(frozen=True, slots=True)
class Ask:
    """What is to be placed, and what it is expected to draw: by hour of the week."""

    kind: Kind
    server_w: Floats  # [hour]
    airflow_m3s: Floats  # [hour]
    gpu_w: float  # of a GPU at its peak


@dataclass(frozen=True, slots=True)
class Placed:
    server: int
    within: bool  # False: no server keeps all limits, this one breaks them least
    reason: str


@dataclass(slots=True)
class Ground:
    """The books: what stands where, and what is left."""

    row: Numbers  # of each server
    aisle: Numbers
    row_most_w: Floats
    aisle_most_m3s: Floats
    cool_c: Floats  # [server]: of its hottest GPU on the hottest day, without load
    k_per_w: Floats  # [server]: and what a GPU's watt adds
    limit_c: float
    free: Mask
    row_w: Floats  # [row, hour]: sums of what stands there
    aisle_m3s: Floats  # [aisle, hour]
    counts: Floats  # [row, kind]

    @classmethod
    def empty(
        cls,
        row: Numbers,
        aisle: Numbers,
        row_most_w: Floats,
        aisle_most_m3s: Floats,
        heat: tuple[Floats, Floats, float],
        hours: int,
    ) -> "Ground":
        """heat: cool_c, k_per_w, limit_c."""
        rows, aisles = len(row_most_w), len(aisle_most_m3s)
        books = np.zeros((rows, hours)), np.zeros((aisles, hours)), np.zeros((rows, len(KINDS)))
        return cls(row, aisle, row_most_w, aisle_most_m3s, *heat, np.ones(len(row), dtype=bool), *books)

    def take(self, ask: Ask, server: int) -> None:
        assert self.free[server], f"server {server} is taken"
        self.free[server] = False
        self._book(ask, server, 1.0)

    def leave(self, ask: Ask, server: int) -> None:
        assert not self.free[server], f"server {server} is free"
        self.free[server] = True
        self._book(ask, server, -1.0)

    def _book(self, ask: Ask, server: int, sign: float) -> None:
        self.row_w[self.row[server]] += sign * ask.server_w
        self.aisle_m3s[self.aisle[server]] += sign * ask.airflow_m3s
        self.counts[self.row[server], KINDS.index(ask.kind)] += sign


def place(ask: Ask, ground: Ground) -> Placed | None:
    """Does not take it. None: no server is free."""
    free = np.flatnonzero(ground.free)
    if not len(free):
        return None
    rows, aisles = ground.row[free], ground.aisle[free]
    power = ((ground.row_w + ask.server_w).max(axis=1) / ground.row_most_w)[rows]
    air = ((ground.aisle_m3s + ask.airflow_m3s).max(axis=1) / ground.aisle_most_m3s)[aisles]
    hottest = ground.cool_c[free] + ground.k_per_w[free] * ask.gpu_w
    heat = hottest / (ground.limit_c - MARGIN_C)
    worst = np.maximum(np.maximum(power, air), heat)
    within = worst <= 1.0
    if not within.any():
        best = int(np.argmin(worst))
        names = ("row power", "aisle airflow", "temperature")
        broken = names[int(np.argmax([power[best], air[best], heat[best]]))]
        return Placed(int(free[best]), False, f"{broken} at {worst[best]:.0%} of its limit, the least anywhere")
    kept = np.flatnonzero(within)
    score = _score(ask, ground, free[kept], power[kept], hottest[kept])
    best = int(kept[int(np.argmin(score))])
    return Placed(int(free[best]), True, f"row power {power[best]:.0%}, airflow {air[best]:.0%} at the week's peak")


def _score(ask: Ask, ground: Ground, servers: Numbers, power: Floats, hottest: Floats) -> Floats:
    """Lower is better."""
    kind = KINDS.index(ask.kind)
    of_row = np.bincount(ground.row, minlength=len(ground.row_most_w))
    balance = (ground.counts[:, kind] / of_row)[ground.row[servers]]
    by_aisle = np.bincount(ground.aisle[servers], balance) / np.maximum(np.bincount(ground.aisle[servers]), 1)
    both = 0.5 * (balance + by_aisle[ground.aisle[servers]])
    warmth = np.argsort(np.argsort(ground.cool_c[servers] + 400.0 * ground.k_per_w[servers])) / max(1, len(servers) - 1)
    runs_hot = 1.0 if ask.kind == "opaque" else -1.0  # what can be slowed down may stand where it is warm
    found: Floats = both + MATCH_WEIGHT * runs_hot * warmth + power + 1e-3 * hottest / ground.limit_c
    return found
