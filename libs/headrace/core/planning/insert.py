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
    LOAD,
    MODEL,
    OFFSET,
    OWN,
    SERVICE,
    SITE,
    STRAGGLER,
    VAR,
    Board,
    Floats,
    Numbers,
    Place,
    Timeline,
    costs,
)
from headrace.core.planning.cost import SWAP_COST
from headrace.core.planning.guest import Guest
from headrace.core.planning.problem import GroupSpec

EXACT = 6  # places that are priced exactly
# Of places that cost the same the one behind all that is due before: far below what a second of waiting costs.
OVERTAKING = 1e-10
_SHADOW = 0.7


def cheapest(board: Board, group: GroupSpec, now_s: float) -> Place | None:
    """None: no instance can serve the group."""
    guest = board.guest(group)
    if not guest.served.any():
        return None
    line, size, lengths = board.timeline(now_s), len(board), np.diff(board.first)
    theirs = np.repeat(guest.block, lengths, axis=1)  # the guest at each group's instance
    overtaken = OVERTAKING * _overtaken(board, theirs)
    within, behind = _within(board, line, guest, theirs, now_s), _behind(board, line, guest, now_s)
    prices = np.concatenate((within + overtaken, behind))
    found = prices.argpartition(EXACT)[:EXACT] if len(prices) > EXACT else np.arange(len(prices))
    found = np.sort(found[prices[found] < np.inf])
    inside = found[found < size]
    prices[inside] = _exact(board, line, theirs[:, inside], inside, now_s) + overtaken[inside]
    best: tuple[float, int, int] | None = None
    for at in found.tolist():
        instance = int(board.columns[SITE, at]) if at < size else at - size
        place = at - int(board.first[instance]) if at < size else int(lengths[instance])
        if best is None or (prices[at], instance, place) < best:
            best = (float(prices[at]), instance, place)
    assert best is not None
    return Place(best[1], best[2])


def _behind(board: Board, line: Timeline, guest: Guest, now_s: float) -> Floats:
    """What it costs to put the group at the end of each queue."""
    end_swap = line.end_model != guest.block[MODEL]
    begin_s = line.end_s + end_swap * (line.end_straggler_s + guest.block[LOAD])
    price: Floats = _own(guest.block, begin_s, line.end_var, board.z, now_s) + SWAP_COST * end_swap
    price[~guest.served] = np.inf
    return price


def _within(board: Board, line: Timeline, guest: Guest, theirs: Floats, now_s: float) -> Floats:
    """About what it costs to put the group before each one of the board."""
    size = len(board)
    if not size:
        return np.empty(0)
    block, lengths = board.columns, np.diff(board.first)
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
    price: Floats = _own(theirs, begin_s, line.var, board.z, now_s) + behind + SWAP_COST * kind
    price[~np.repeat(guest.served, lengths)] = np.inf
    for instance in np.flatnonzero(lengths).tolist():
        first = int(board.first[instance])
        price[first : first + board.heads(instance)] = np.inf
    return price


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


def _exact(board: Board, line: Timeline, guest: Floats, at: Numbers, now_s: float) -> Floats:
    """The prices of putting the group before these. guest: the group at their instances."""
    block, ends = board.columns, board.first[board.columns[SITE, at].astype(np.int64) + 1]
    swap, next_swap = line.before_model[at] != guest[MODEL], block[MODEL, at] != guest[MODEL]
    begin_s, delay_s = _shift(block[:, at], _some(line, at), guest, swap, next_swap)
    swaps = swap.astype(np.int64) + next_swap - line.swap[at]
    rises = [
        float((_delayed(block[:, tail], _some(line, tail), later_s, var, board.z) - line.cost[tail]).sum())
        for tail, later_s, var in zip(map(slice, at, ends), delay_s.tolist(), guest[VAR].tolist(), strict=True)
    ]
    price: Floats = _own(guest, begin_s, line.var[at], board.z, now_s) + rises + SWAP_COST * swaps
    return price


def _some(line: Timeline, at: Numbers | slice) -> Timeline:
    """Of these groups; what belongs to instances is left as it is."""
    return Timeline(
        line.begin_s[at],
        line.var[at],
        line.wait_s[at],
        line.late_s[at],
        line.cost[at],
        line.swap[at],
        line.before_model[at],
        line.before_straggler_s[at],
        line.end_s,
        line.end_var,
        line.end_model,
        line.end_straggler_s,
    )
