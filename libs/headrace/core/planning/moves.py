"""Moves that make a plan cheaper, each taken only if it does: groups and runs of one model elsewhere, pairs exchanged,
ends of two lines exchanged, and a few groups taken out and put back one by one."""

from collections.abc import Iterator

import numpy as np

from headrace.core.planning.lines import GAIN_LEAST, Line, Lines, Order

_PAIRS_MOST = 48  # groups up to which every pair is tried: beyond, taking out and putting back finds more for its work
_OUT_MOST = 5  # groups taken out at once
_SEED = 5


def improve(search: Lines) -> None:
    """Until no move helps or the budget is used up."""
    moved = True
    while moved and search.left > 0:
        moved = _relocate_all(search)
        moved = _relocate_runs(search) or moved
        moved = _exchange_tails(search) or moved
        if sum(len(line.order) for line in search.lines) <= _PAIRS_MOST:
            moved = _exchange_pairs(search) or moved


def perturb(search: Lines) -> None:
    """Takes out and puts back while budget is left; the plan never gets more expensive. A small plan is given up on
    when about everything has been tried in vain."""
    rng = np.random.default_rng(_SEED)
    loose = sum(len(line.order) - line.pinned for line in search.lines)
    in_vain = 0
    while search.left > 0 and loose > 1 and in_vain < 20 + loose**2:
        in_vain += 1
        before, cost = search.snapshot(), search.cost
        taken = _take_out(search, rng, int(rng.integers(1, min(_OUT_MOST, loose) + 1)))
        for number in taken:
            search.insert([number])
        if search.cost >= cost - GAIN_LEAST:
            search.restore(before)
        else:
            in_vain = 0


def _take_out(search: Lines, rng: np.random.Generator, count: int) -> Order:
    """Neighbours in one line, or any groups, in the order in which they are to be put back."""
    loose = [number for line in search.lines for number in line.order[line.pinned :]]
    if rng.random() < 0.5:
        first = int(rng.integers(0, len(loose) - count + 1))
        taken = loose[first : first + count]
    else:
        taken = [loose[at] for at in rng.choice(len(loose), count, replace=False).tolist()]
    for line in search.lines:
        kept = [number for number in line.order if number not in taken]
        if len(kept) < len(line.order):
            at = next(at for at, number in enumerate(line.order) if number in taken)
            search.set_tail(line, at, kept[at:])
    if rng.random() < 0.5:
        groups = search.terms.groups
        return sorted(taken, key=lambda number: (groups[number].due_s, number))
    return [taken[at] for at in rng.permutation(count).tolist()]


def _relocate_all(search: Lines) -> bool:
    moved = False
    for number in [number for line in search.lines for number in line.order[line.pinned :]]:
        if search.left <= 0:
            break
        line = next(line for line in search.lines if number in line.order)
        moved = _relocate(search, line, line.order.index(number), 1) or moved
    return moved


def _relocate_runs(search: Lines) -> bool:
    """A run of one model goes elsewhere as a whole, best to others of its model: that saves a swap."""
    moved = False
    for line in search.lines:
        at = line.pinned
        while at < len(line.order) and search.left > 0:
            size = _run_length(search, line, at)
            if size > 1 and _relocate(search, line, at, size):
                moved = True
            at += size
    return moved


def _run_length(search: Lines, line: Line, at: int) -> int:
    groups = search.terms.groups
    model = groups[line.order[at]].model
    end = next((k for k in range(at, len(line.order)) if groups[line.order[k]].model != model), len(line.order))
    return max(1, end - at)


def _relocate(search: Lines, line: Line, at: int, size: int) -> bool:
    """The groups from `at` on go where they add least, if that makes the plan cheaper."""
    numbers, rest = line.order[at : at + size], line.order[:at] + line.order[at + size :]
    saved = line.cost - search.price(line, at, rest[at:])
    best = -GAIN_LEAST
    found: tuple[Line, int, Order] | None = None
    for q in search.places(line, rest, numbers[0]):
        if q != at:
            common = min(at, q)
            tail = rest[common:q] + numbers + rest[q:]
            change = search.price(line, common, tail, line.cost + best) - line.cost
            if change < best:
                best, found = change, (line, common, tail)
    for site in search.sites_of(numbers):
        other = search.lines[site]
        if other is line:
            continue
        for q in search.places(other, other.order, numbers[0]):
            change = search.added(other, q, numbers, saved + best) - saved
            if change < best:
                best, found = change, (other, q, numbers + other.order[q:])
    if found is None:
        return False
    target, q, tail = found
    if target is not line:
        search.set_tail(line, at, rest[at:])
    search.set_tail(target, q, tail)
    return True


def _exchange_pairs(search: Lines) -> bool:
    moved = False
    numbers = sorted(number for line in search.lines for number in line.order[line.pinned :])
    for i, one in enumerate(numbers):
        for other in numbers[i + 1 :]:
            if search.left <= 0:
                return moved
            moved = _exchange(search, one, other) or moved
    return moved


def _exchange(search: Lines, one: int, other: int) -> bool:
    a = next(line for line in search.lines if one in line.order)
    b = next(line for line in search.lines if other in line.order)
    if a is b:
        order = [other if each == one else one if each == other else each for each in a.order]
        at = min(a.order.index(one), a.order.index(other))
        return _take(search, [(a, at, order[at:])])
    if a.site not in search.terms.allowed[other] or b.site not in search.terms.allowed[one]:
        return False
    p, q = a.order.index(one), b.order.index(other)
    return _take(search, [(a, p, [other, *a.order[p + 1 :]]), (b, q, [one, *b.order[q + 1 :]])])


def _exchange_tails(search: Lines) -> bool:
    moved = False
    for a, b, p, q in _cuts(search):
        if search.left <= 0:
            return moved
        if p > len(a.order) or q > len(b.order):
            continue
        search.left -= 1  # also of a cut that is not priced
        tail_a, tail_b = b.order[q:], a.order[p:]
        allowed = search.terms.allowed
        if all(a.site in allowed[n] for n in tail_a) and all(b.site in allowed[n] for n in tail_b):
            moved = _take(search, [(a, p, tail_a), (b, q, tail_b)]) or moved
    return moved


def _cuts(search: Lines) -> Iterator[tuple[Line, Line, int, int]]:
    """Where two lines may be cut: anywhere in short ones, at the beginning of runs in long ones."""
    lines = search.lines
    for i, a in enumerate(lines):
        for b in lines[i + 1 :]:
            places = _boundaries(search, b)
            for p in _boundaries(search, a):
                for q in places:
                    yield a, b, p, q


def _boundaries(search: Lines, line: Line) -> list[int]:
    size, groups = len(line.order), search.terms.groups
    every = range(line.pinned, size + 1)
    if len(every) <= 8:
        return list(every)
    models = [groups[number].model for number in line.order]
    return [at for at in every if at in (line.pinned, size) or models[at] != models[at - 1]]


def _take(search: Lines, changes: list[tuple[Line, int, Order]]) -> bool:
    """Make the changes if together they make the plan cheaper."""
    most = sum(line.cost for line, _, _ in changes) - GAIN_LEAST
    cost = 0.0
    for line, at, tail in changes:
        cost += search.price(line, at, tail, most - cost)
        if cost >= most:
            return False
    for line, at, tail in changes:
        search.set_tail(line, at, tail)
    return True
