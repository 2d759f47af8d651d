"""The best schedule that could be found with everything known: all arrivals, all lengths, and ten runs to try it out.

An online policy runs once. The search gets ten times that: ten replays in the very same simulator, so that what it says
is what a schedule really keeps. Its choices: whom to serve at all (the others are never let in and count as let down),
and in whose order. Prices of the relaxation (queue_bound) say whom: a request is left out when its seconds at the
cheapest moments of its window cost more than the promise is worth. No real schedule is as dense as the relaxation, so
prices are raised until what is let in can be kept; then whatever was let in and still came late is left out, which
makes room, and what fits best into it is let in again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.workload.arrival import Arrival
from loadtest.benches.queue_bound import Bound, Windows, bound
from loadtest.benches.queue_costs import costs_of
from loadtest.benches.queue_runs import Cell, row_of, share, simulated
from loadtest.benches.queue_workloads import CLASSES

Mask = NDArray[np.bool_]

REPLAYS = 10
NEAR = 0.999  # of the bound: there is nothing left to find
FACTORS = (1.0, 1.15, 1.35, 1.6)  # of the prices
KV_SHARES = (0.0, 0.3)  # see queue_costs: every one gives a valid bound, the least counts
_BACK = 0.5  # of what a repair has cleared is let in again


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked for; picklable."""

    cell: Cell
    seed: int
    replays: int = REPLAYS
    steps: int = 300  # of the prices

    def __str__(self) -> str:
        return f"{self.cell}, clairvoyant, seed {self.seed}"


@dataclass(slots=True)
class _Tried:
    """The best of the replays so far."""

    replay: Callable[[Mask, str], tuple[Mask, dict[str, Any]]]
    left: int
    kept: Mask
    let_in: Mask
    order: str = ""
    row: dict[str, Any] = field(default_factory=dict)

    def __call__(self, let_in: Mask, order: str) -> Mask:
        """Who is kept of those let in; nobody once the budget is spent."""
        if not self.left:
            return np.zeros_like(let_in)
        self.left -= 1
        kept, row = self.replay(let_in, order)
        if kept.sum() > self.kept.sum() or not self.order:
            self.kept, self.let_in, self.order, self.row = kept, let_in, order, row
        return kept


def orders(cell: Cell) -> tuple[str, ...]:
    """In whose order the chosen are served: due first is best where one machine serves all and nothing is loaded."""
    return ("headrace+oracle", "vq-edf") if len(cell.shape.models) > 1 else ("edf", "headrace+oracle")


def carry_out(search: Search) -> dict[str, Any]:
    """The row of the found schedule, and the bounds."""
    cell, arrivals = search.cell, search.cell.arrivals(search.seed)
    bounds = {
        "first_token": _bound(cell, arrivals, "first_token", search.steps),
        "complete": _bound(cell, arrivals, "complete", search.steps),
        "unbroken": _bound(cell, arrivals, "unbroken", search.steps),
    }
    tried = _Tried(_replays(cell, search.seed, arrivals), search.replays, *np.zeros((2, len(arrivals)), np.bool_))
    _search(tried, orders(cell), bounds["unbroken"], bounds["complete"].kept)
    return {
        **tried.row,
        "requests": len(arrivals),
        "attainment": share(tried.kept),
        "by_class": by_class(arrivals, tried.kept),
        "bounds": {name: min(1.0, each.kept / max(1, len(arrivals))) for name, each in bounds.items()},
        "let_in": share(tried.let_in),
        "order": tried.order,
        "replays": search.replays - tried.left,
    }


def by_class(arrivals: list[Arrival], kept: Mask) -> dict[str, float]:
    names = np.array([arrival.slo_class for arrival in arrivals])
    return {name: share(kept[names == name]) for name in CLASSES}


def _bound(cell: Cell, arrivals: list[Arrival], kind: str, steps: int) -> Bound:
    """The least of all that hold."""
    scenario = cell.scenario()
    found = []
    for kv_share in KV_SHARES:
        windows = Windows.of(scenario, arrivals, unbroken=kind == "unbroken")
        costs = costs_of(scenario, arrivals, kv_share)
        found.append(bound(costs, windows, decode=kind != "first_token", steps=steps))
    return min(found, key=lambda each: each.kept)


def _replays(cell: Cell, seed: int, arrivals: list[Arrival]) -> Callable[[Mask, str], tuple[Mask, dict[str, Any]]]:
    def replay(let_in: Mask, order: str) -> tuple[Mask, dict[str, Any]]:
        chosen = [arrival for arrival, wanted in zip(arrivals, let_in, strict=True) if wanted]
        result = simulated(cell, order, seed, chosen, {})
        kept = np.zeros_like(let_in)
        kept[np.flatnonzero(let_in)] = result.met()
        return kept, row_of(result, cell.horizon_s)

    return replay


def _search(tried: _Tried, names: tuple[str, ...], priced: Bound, most: float) -> None:
    everybody = np.ones_like(tried.kept)
    enough = NEAR * most
    for order in names:
        if tried(everybody, order).sum() >= enough:
            return
    best: tuple[int, float] = (-1, 1.0)
    for factor in FACTORS:
        if (let_in := _worth(priced, factor)).all():
            continue
        got = int(tried(let_in, names[0]).sum())
        if got < best[0]:
            break
        best = max(best, (got, factor))
    _repair(tried, names, priced, enough)


def _repair(tried: _Tried, names: tuple[str, ...], priced: Bound, enough: float) -> None:
    """Leave out who came late; now and then let some in again, the cheapest first."""
    turn = 0
    while tried.left and tried.kept.sum() < enough:
        before = int(tried.kept.sum())
        let_in = tried.kept.copy()
        missed = np.flatnonzero(tried.let_in & ~tried.kept)
        if turn % 2:
            out = np.flatnonzero(~let_in)
            let_in[out[np.argsort(-priced.gain[out])[: max(1, int(_BACK * len(missed)))]]] = True
        tried(let_in, tried.order or names[0])
        if int(tried.kept.sum()) <= before and turn % 2 and not len(missed):
            return
        turn += 1


def _worth(priced: Bound, factor: float) -> Mask:
    """Whose seconds cost less than a promise is worth, at prices so much higher."""
    return np.asarray(factor * (1.0 - priced.gain) < 1.0)
