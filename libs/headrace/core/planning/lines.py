"""A plan that is being searched: one line for each instance, with the state after each of its groups.

A move asks what a line would cost with another end; only groups from its first change on are counted again. Every
question takes from `left` as many steps as groups it counted: a bound on work that needs no clock.
"""

from collections.abc import Iterable, Sequence
from math import inf

from headrace.core.planning.cost import SWAP_COST, State, Terms

Order = list[int]
Snapshot = list[tuple[Order, list[State]]]
_ALL_PLACES = 12  # groups in a line up to which every place is tried
_NEAR = 3  # boundaries of its model's runs that are tried in a longer line
_STRIDE = 4  # groups that are counted between two looks at whether a place may still be the best
GAIN_LEAST = 1e-12


class Line:
    __slots__ = ("order", "pinned", "site", "states")

    def __init__(self, site: int, start: State, pinned: int) -> None:
        self.site = site
        self.pinned = pinned
        self.order: Order = []
        self.states = [start]

    @property
    def cost(self) -> float:
        return self.states[-1].cost


class Lines:
    def __init__(self, terms: Terms, budget: int) -> None:
        self.terms = terms
        self.left = budget
        self.lines: list[Line] = []
        self.clear()

    @property
    def cost(self) -> float:
        return sum(line.cost for line in self.lines)

    def clear(self) -> None:
        """Nothing is left but the pinned groups."""
        pinned = self.terms.pinned
        self.lines = [Line(g, site.start, len(pinned[g])) for g, site in enumerate(self.terms.sites)]
        for line, head in zip(self.lines, pinned, strict=True):
            self.set_tail(line, 0, head)

    def queues(self) -> list[Order]:
        return [list(line.order) for line in self.lines]

    def snapshot(self) -> Snapshot:
        """Orders and states are replaced, never changed, so that references are enough."""
        return [(line.order, line.states) for line in self.lines]

    def restore(self, snapshot: Snapshot) -> None:
        for line, (order, states) in zip(self.lines, snapshot, strict=True):
            line.order, line.states = order, states

    def price(self, line: Line, at: int, tail: Sequence[int], limit: float = inf) -> float:
        """What the line would cost if it had `tail` from `at` on; anything above `limit` where that is passed."""
        self.left -= len(tail)
        return self.terms.run(line.site, tail, line.states[at], limit).cost

    def added(self, line: Line, at: int, numbers: Order, limit: float = inf) -> float:
        """What groups would add to the line if they stood between those before and those from `at` on; anything above
        `limit` where that is passed. Nobody behind them gets cheaper (they begin later, and no swap is saved but the
        next one), so that what has been added so far is the least that will be: most places are given up early."""
        order, states = line.order, line.states
        self.left -= len(numbers) + len(order) - at
        state = self.terms.run(line.site, numbers, states[at], states[at].cost + SWAP_COST + limit)
        if state.cost > states[at].cost + SWAP_COST + limit:
            return inf
        for first in range(at, len(order), _STRIDE):
            before = states[min(first + _STRIDE, len(order))].cost
            state = self.terms.run(line.site, order[first : first + _STRIDE], state, before + limit)
            if state.cost > before + limit:
                return inf
        return state.cost - line.cost

    def set_tail(self, line: Line, at: int, tail: Sequence[int]) -> None:
        state = line.states[at]
        states = line.states[: at + 1]
        for number in tail:
            state = self.terms.run(line.site, (number,), state)
            states.append(state)
        line.order = [*line.order[:at], *tail]
        line.states = states
        self.left -= len(tail)

    def places(self, line: Line, order: Sequence[int], number: int) -> Iterable[int]:
        """Where in `order` (that of the line, perhaps without some groups) a group is worth trying: in a long line only
        at its end, where its due time is, and around the runs of its model nearest to that place."""
        size, first = len(order), line.pinned
        if size - first <= _ALL_PLACES:
            return range(size, first - 1, -1)
        groups, works = self.terms.groups, self.terms.works[line.site]
        due_s, model = groups[number].due_s, works[number].model
        due_at = next((at for at in range(first, size) if groups[order[at]].due_s > due_s), size)
        same = [works[each].model == model for each in order]
        edges = [at for at in range(max(1, first), size) if same[at] != same[at - 1]]
        edges.sort(key=lambda at: abs(at - due_at))
        return sorted({size, due_at, max(first, due_at - 1), *edges[:_NEAR]}, reverse=True)  # the cheap to price first

    def best_place(self, numbers: Order, limit: float = inf) -> tuple[float, Line, int] | None:
        """The cheapest place for groups that stay together, and what they add; None: none adds less than `limit`."""
        best: tuple[float, Line, int] | None = None
        for site in self.sites_of(numbers):
            line = self.lines[site]
            for at in self.places(line, line.order, numbers[0]):
                added = self.added(line, at, numbers, limit)
                if added < limit - GAIN_LEAST:
                    limit, best = added, (added, line, at)
        return best

    def insert(self, numbers: Order) -> None:
        found = self.best_place(numbers)
        assert found is not None, "a group that no instance can serve"
        _, line, at = found
        self.set_tail(line, at, [*numbers, *line.order[at:]])

    def append(self, number: int) -> None:
        """To the end of the line where that adds least."""
        line = min(
            (self.lines[site] for site in self.terms.allowed[number]),
            key=lambda line: (self.price(line, len(line.order), [number]) - line.cost, line.site),
        )
        self.set_tail(line, len(line.order), [number])

    def sites_of(self, numbers: Order) -> list[int]:
        allowed = self.terms.allowed
        first = allowed[numbers[0]]
        if len(numbers) == 1:
            return first
        return [site for site in first if all(site in allowed[number] for number in numbers[1:])]
