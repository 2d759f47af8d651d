"""The cheapest plan there is, for a dozen groups at most: dynamic programming over sets of groups.

For one instance, all orders of a set that end with the same model leave the same uncertainty; they differ in time,
stragglers and cost, and what follows is never cheaper for being later. So of each (set, model) only those are kept that
none beats in all three. Sets are then shared out among the instances, one instance after the other. Exact in the cost
as it is counted, chance constraint and all; work grows with 2^groups for each instance and 3^groups for sharing out.
"""

from math import inf
from typing import NamedTuple

from headrace.core.planning.cost import State, Terms
from headrace.core.planning.lines import Order

GROUPS_MOST = 12  # where sharing out takes seconds


class _Way(NamedTuple):
    state: State
    order: tuple[int, ...]


def optimum(terms: Terms) -> tuple[float, list[Order]]:
    """The cost and the numbers of the groups for each instance; at most GROUPS_MOST groups that are not pinned."""
    pinned = {number for head in terms.pinned for number in head}
    loose = [number for number in range(len(terms.groups)) if number not in pinned]
    assert len(loose) <= GROUPS_MOST, f"{len(loose)} groups are too many to try all plans"
    best = _of_instance(terms, 0, loose)
    shares: list[dict[int, int]] = []  # by instance: of a set for this and those before it, what this one has
    tables = [best]
    for site in range(1, len(terms.sites)):
        own = _of_instance(terms, site, loose)
        tables.append(own)
        best, share = _joined(best, own, (1 << len(loose)) - 1)
        shares.append(share)
    return _read(terms, loose, tables, best, shares)


def _of_instance(terms: Terms, site: int, loose: Order) -> dict[int, _Way]:
    """For each set that the instance can serve, by bits: the cheapest order."""
    head = tuple(terms.pinned[site])
    first = _Way(terms.run(site, head, terms.sites[site].start), head)
    able = [bit for bit, number in enumerate(loose) if site in terms.allowed[number]]
    works = terms.works[site]
    layer: dict[tuple[int, int], list[_Way]] = {(0, -1): [first]}
    best = {0: first}
    while layer:
        wider: dict[tuple[int, int], list[_Way]] = {}
        for (members, _), ways in layer.items():
            for bit in able:
                if not members >> bit & 1:
                    kept = wider.setdefault((members | 1 << bit, works[loose[bit]].model), [])
                    for way in ways:
                        state = terms.run(site, (loose[bit],), way.state)
                        _keep(kept, _Way(state, (*way.order, loose[bit])))
        for (members, _), ways in wider.items():
            cheapest = min(ways, key=lambda way: way.state.cost)
            if members not in best or cheapest.state.cost < best[members].state.cost:
                best[members] = cheapest
        layer = wider
    return best


def _keep(kept: list[_Way], new: _Way) -> None:
    """Unless one that is known is as good; those that the new one beats go."""
    if any(_as_good(way.state, new.state) for way in kept):
        return
    kept[:] = [way for way in kept if not _as_good(new.state, way.state)]
    kept.append(new)


def _as_good(one: State, other: State) -> bool:
    if one.time_s > other.time_s or one.cost > other.cost:
        return False
    return one.time_s + one.straggler_s <= other.time_s + other.straggler_s


def _joined(before: dict[int, _Way], own: dict[int, _Way], everyone: int) -> tuple[dict[int, _Way], dict[int, int]]:
    """The cheapest for each set on the instances so far; the way's order is not meant, its cost is."""
    best: dict[int, _Way] = {}
    share: dict[int, int] = {}
    for members in range(everyone + 1):
        least, mine = inf, members
        while True:  # every subset of members
            if mine in own and members ^ mine in before:
                cost = own[mine].state.cost + before[members ^ mine].state.cost
                if cost < least:
                    least, share[members] = cost, mine
            if not mine:
                break
            mine = (mine - 1) & members
        if least < inf:
            best[members] = _Way(State(0.0, 0.0, 0, 0.0, least), ())
    return best, share


def _read(
    terms: Terms, loose: Order, tables: list[dict[int, _Way]], best: dict[int, _Way], shares: list[dict[int, int]]
) -> tuple[float, list[Order]]:
    members = (1 << len(loose)) - 1
    queues: list[Order] = [[] for _ in terms.sites]
    for site in range(len(terms.sites) - 1, 0, -1):
        mine = shares[site - 1][members]
        queues[site] = list(tables[site][mine].order)
        members ^= mine
    queues[0] = list(tables[0][members].order)
    return terms.cost(queues), queues
