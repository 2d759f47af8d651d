"""The cheapest place for one new group among queues that stay as they are: the decision on the request path.

A group at a place delays all behind it by one and the same time: its service and what model changes it adds. For three
delays (no change added, one, two) the cost of delaying each group is found in one pass over all, and sums from the end
give every place's price, scaled to its own delay; the few that look cheapest are then priced exactly. The work is a
fixed number of array operations, each as long as there are groups in line.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.core.planning.board import (
    COUNT,
    LOAD,
    MODEL,
    MOST,
    OFFSET,
    OWN,
    SERVICE,
    SITE,
    STRAGGLER,
    TARDY,
    VAR,
    WIDTH,
    Board,
    Floats,
    Place,
    Timeline,
    costs,
)
from headrace.core.planning.cost import SWAP_COST, WAIT_COST
from headrace.core.planning.guest import Guest
from headrace.core.planning.problem import GroupSpec

EXACT = 6  # places that are priced exactly
# Of places that cost the same the one behind all that is due before: far below what a second of waiting costs.
OVERTAKING = 1e-8
_SHADOW = 0.7


def cheapest(board: Board, group: GroupSpec, now_s: float) -> Place | None:
    """None: no instance can serve the group."""
    guest = board.guest(group)
    if not guest.served.any():
        return None
    line = board.timeline(now_s)
    inner, outer = _estimates(board, line, guest, now_s)
    prices = np.concatenate((inner, outer))
    size = len(board)
    overtaken = _overtaken(board, np.repeat(guest.block, np.diff(board.first), axis=1)) if size else np.empty(0)
    best: tuple[float, int, int] | None = None
    found = prices.argpartition(EXACT)[:EXACT] if len(prices) > EXACT else np.arange(len(prices))
    for at in sorted(found.tolist()):
        if prices[at] == np.inf:
            continue
        instance = int(board.columns[SITE, at]) if at < size else at - size
        place = at - int(board.first[instance]) if at < size else int(np.diff(board.first)[instance])
        price = float(prices[at]) if at >= size else _exact(board, line, guest.block[:, instance], at, now_s)
        price += OVERTAKING * float(overtaken[at]) if at < size else 0.0
        if best is None or (price, instance, place) < best:
            best = (price, instance, place)
    assert best is not None
    return Place(best[1], best[2])


def _estimates(board: Board, line: Timeline, guest: Guest, now_s: float) -> tuple[Floats, Floats]:
    """What it costs to put the group before each one of the board, and at the end of each queue (that exactly)."""
    end_swap = line.end_model != guest.block[MODEL]
    begin_s = line.end_s + end_swap * (line.end_straggler_s + guest.block[LOAD])
    outer = _own(guest.block, begin_s, line.end_var, board.z, now_s) + SWAP_COST * end_swap
    outer[~guest.served] = np.inf
    size = len(board)
    if not size:
        return np.empty(0), outer
    block, lengths = board.columns, np.diff(board.first)
    theirs = np.repeat(guest.block, lengths, axis=1)
    swap, next_swap = line.before_model != theirs[MODEL], block[MODEL] != theirs[MODEL]
    kind = swap.astype(np.int64) + next_swap - line.swap  # model changes that it adds
    begin_s, delay_s = _shift(block, line, theirs, swap, next_swap)
    # The least and most that a group brings, and what two changes bring on average: places lie near one of these.
    once_s = theirs[SERVICE] + theirs[LOAD] + theirs[STRAGGLER]
    levels = np.stack((theirs[SERVICE], once_s, once_s + float(np.mean(block[LOAD] + block[STRAGGLER]))))
    rise = np.empty((3, size + 1))
    rise[:, 0] = 0.0
    np.cumsum(_delayed(block, line, levels, theirs[VAR], board.z) - line.cost, axis=1, out=rise[:, 1:])
    everyone, level = np.arange(size), np.maximum(kind, 0)
    behind = rise[level, np.repeat(board.first[1:], lengths)] - rise[level, everyone]
    part = delay_s / np.maximum(levels[level, everyone], 1e-9)
    # A place in the shadow of stragglers that are waited for anyhow delays the others by little: perhaps none is late.
    behind *= np.where(part < _SHADOW, 0.0, part)
    inner: Floats = _own(theirs, begin_s, line.var, board.z, now_s) + behind + SWAP_COST * kind
    inner += OVERTAKING * _overtaken(board, theirs)
    inner[~np.repeat(guest.served, lengths)] = np.inf
    for instance in np.flatnonzero(lengths).tolist():
        first = int(board.first[instance])
        inner[first : first + board.heads(instance)] = np.inf
    return inner, outer


def _overtaken(board: Board, theirs: Floats) -> Floats:
    """At each place, how many groups that are due before the new one would stand behind it."""
    earlier = board.columns[OFFSET] > theirs[OFFSET]  # offsets fall as due times rise
    before = np.concatenate(([0.0], np.cumsum(earlier)))
    found: Floats = before[np.repeat(board.first[1:], np.diff(board.first))] - before[:-1]
    return found


def _shift(
    block: Any, line: Timeline, guest: Any, swap: NDArray[np.bool_], next_swap: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """When the guest would begin before each group, and how much later that one would then begin. `swap`: a model
    change before the guest; `next_swap`: one after it."""
    before_s = line.begin_s - line.swap * (line.before_straggler_s + block[LOAD])
    begin_s = before_s + swap * (line.before_straggler_s + guest[LOAD])
    running_s = np.where(swap, 0.0, line.before_straggler_s - guest[SERVICE])
    next_s = begin_s + guest[SERVICE] + next_swap * (np.maximum(guest[STRAGGLER], running_s) + block[LOAD])
    return begin_s, next_s - line.begin_s


def _own(block: Floats, begin_s: Floats, var: Floats, z: float, now_s: float) -> Floats:
    wait_s = begin_s + z * np.sqrt(np.maximum(var + block[OWN], 0.0))
    return costs(block, wait_s - now_s, wait_s + block[OFFSET])


def _delayed(block: Floats, line: Timeline, delay_s: Floats | float, var: Floats | float, z: float) -> Floats:
    """The cost of each group if it began so much later, so much less surely."""
    known = line.var + block[OWN]
    more_s = delay_s + z * (np.sqrt(np.maximum(known + var, 0.0)) - np.sqrt(np.maximum(known, 0.0)))
    return costs(block, line.wait_s + more_s, line.late_s + more_s)


def _exact(board: Board, line: Timeline, guest: Floats, at: int, now_s: float) -> float:
    """The price of putting the group before the one `at`."""
    end = int(board.first[int(board.columns[SITE, at]) + 1])
    tail, behind = board.columns[:, at:end], _cut(line, at, end)
    swap, next_swap = line.before_model[at : at + 1] != guest[MODEL], tail[MODEL, :1] != guest[MODEL]
    begin_s, delay_s = _shift(tail[:, :1], _cut(line, at, at + 1), guest, swap, next_swap)
    rise = _delayed(tail, behind, float(delay_s[0]), guest[VAR], board.z) - behind.cost
    wait_s = float(begin_s[0] + board.z * np.sqrt(line.var[at] + guest[OWN]))
    swaps = int(swap[0]) + int(next_swap[0]) - int(line.swap[at])
    return _scalar(guest, wait_s - now_s, wait_s + guest[OFFSET]) + float(rise.sum()) + SWAP_COST * swaps


def _scalar(guest: Floats, wait_s: float, late_s: float) -> float:
    share = min(1.0, max(0.0, late_s / guest[WIDTH]))
    tardy = min(guest[MOST], max(0.0, late_s - 0.5 * guest[WIDTH]) * guest[TARDY])
    return float(guest[COUNT] * (share + WAIT_COST * wait_s) + tardy)


def _cut(line: Timeline, at: int, end: int) -> Timeline:
    """The same from one place to another; what belongs to instances is left as it is."""
    return Timeline(
        line.begin_s[at:end],
        line.var[at:end],
        line.wait_s[at:end],
        line.late_s[at:end],
        line.cost[at:end],
        line.swap[at:end],
        line.before_model[at:end],
        line.before_straggler_s[at:end],
        line.end_s,
        line.end_var,
        line.end_model,
        line.end_straggler_s,
    )
