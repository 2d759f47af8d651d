"""List scheduling, which the baselines share: group after group, each to the instance where it would begin first.

A model that is not loaded there takes its load, stragglers before it included; ties go to the instance named first.
"""

from collections.abc import Iterable, Sequence

from headrace.core.planning.board import Board
from headrace.core.planning.cost import State, Terms
from headrace.core.planning.lines import Order
from headrace.core.planning.problem import GroupSpec


def listed(terms: Terms, numbers: Iterable[int], queues: Sequence[Order] = ()) -> list[Order]:
    """Behind `queues`, or behind the pinned groups where none are given."""
    found = [list(queue) for queue in queues or terms.pinned]
    states = [terms.run(g, queue, terms.sites[g].start) for g, queue in enumerate(found)]
    for number in numbers:
        site = min(terms.allowed[number], key=lambda site: (_begin_s(terms, site, number, states[site]), site))
        found[site].append(number)
        states[site] = terms.run(site, (number,), states[site])
    return found


def loose(terms: Terms) -> Order:
    """Numbers of all groups but the pinned ones."""
    pinned = {number for head in terms.pinned for number in head}
    return [number for number in range(len(terms.groups)) if number not in pinned]


def served_by(board: Board, group: GroupSpec) -> list[int]:
    return [instance for instance in range(len(board.instances)) if board.serves(instance, group)]


def _begin_s(terms: Terms, site: int, number: int, state: State) -> float:
    model = terms.works[site][number].model
    return state.time_s + (state.straggler_s + terms.sites[site].load_s[model] if model != state.model else 0.0)
