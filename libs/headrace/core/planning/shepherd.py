"""Like SHEPHERD (NSDI 2023), as QLM compares with it: batches with the most goodput first, and few preemptions.

A batch is a group, and it is served as one: its latency is that of its prefill and of decoding a usual output at its
own width, wave after wave. Goodput is requests on time for each second of that. An instance takes the batch with the
most goodput that can still be on time; late ones go behind all others. A new batch preempts a running one only if its
goodput is `factor` times as high.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from headrace.core.instance import Pace
from headrace.core.planning.board import Board, Floats, Place
from headrace.core.planning.cost import N, Terms
from headrace.core.planning.listing import loose, served_by
from headrace.core.planning.problem import GroupSpec, InstanceModel, InstanceSpec, Plan, Problem


@dataclass(frozen=True, slots=True)
class Shepherd:
    factor: float = 3.0  # a setting of this baseline, not a number of the paper's
    group_max: int = 32  # a static batch
    name: str = "shepherd"
    evicts: bool = True

    def insert(self, board: Board, group: GroupSpec, now_s: float) -> Place | None:
        """By goodput, in the queue that is through first. A place before a pinned group: that one is preempted."""
        end_s = board.timeline(now_s).end_s
        ends = [(float(end_s[instance]), instance) for instance in served_by(board, group)]
        if not ends:
            return None
        instance = min(ends)[1]
        spec, queue, heads = board.instances[instance], board.queue(instance), board.heads(instance)
        own = goodput(spec, group, now_s)
        if heads and own > 0 and own >= self.factor * goodput(spec, board.groups[queue[0]], now_s):
            return Place(instance, 0)
        lower = (at for at in range(heads, len(queue)) if goodput(spec, board.groups[queue[at]], now_s) < own)
        return Place(instance, next(lower, len(queue)))

    def replan(self, problem: Problem, budget: int) -> Plan:
        """Whenever an instance is through, it takes what is best then."""
        terms = Terms(problem)
        queues = [list(head) for head in terms.pinned]
        states = [terms.run(g, queue, terms.sites[g].start) for g, queue in enumerate(queues)]
        order = sorted(loose(terms), key=lambda number: (terms.groups[number].due_s, number))
        left = [True] * len(order)
        sites = [_Site(terms, g, order, left) for g in range(len(queues))]
        able = list(range(len(sites)))
        while able:
            at = min(able, key=lambda g: states[g].time_s)
            best = sites[at].best(states[at].time_s, states[at].model)
            if best is None:
                able.remove(at)
                continue
            left[best] = False
            queues[at].append(order[best])
            states[at] = terms.run(at, (order[best],), states[at])
        return Plan(problem.version, terms.ids(queues), sum(state.cost for state in states), solver=self.name)


# Goodput, place in the order, seconds from the begin (and load) to the first token, and when that is due.
_Batch = tuple[float, int, float, float]


class _Site:
    """All batches at one instance: what goodput() says of each, without asking each of them at every turn.

    Until a batch is late, its goodput changes with the loaded model alone. So each model's batches are stacked, the
    most goodput on top: once as they are when it is loaded, once as they are behind its load. Time only goes on: who is
    taken or late is so for good, and is thrown away when it comes to the top.
    """

    def __init__(self, terms: Terms, site: int, order: Sequence[int], left: Sequence[bool]) -> None:
        """left: which of the order nobody has taken yet, as it is at any time."""
        self._left = left
        self._places = [place for place, number in enumerate(order) if site in terms.allowed[number]]
        self._first = 0  # no place before it is left
        self._stacks: dict[int, tuple[float, list[_Batch], list[_Batch]]] = {}  # seconds of the load; loaded, not yet
        spec, works = terms.problem.instances[site], terms.works[site]
        by_model: dict[int, list[int]] = {}
        for place in self._places:
            by_model.setdefault(works[order[place]].model, []).append(place)
        for model, places in by_model.items():
            groups = [terms.groups[order[place]] for place in places]
            found = spec.of(groups[0].model)
            assert found is not None
            self._stacks[model] = (found.load_s, *_stacked(found, groups, places))

    def best(self, now_s: float, loaded: int) -> int | None:
        """The place of whoever has most goodput; of equals, such as those that are late, the first. None: all are
        taken."""
        most, best = 0.0, -1
        for model, (load_s, warm, cold) in self._stacks.items():
            stack, begin_s = (warm, now_s) if model == loaded else (cold, now_s + load_s)
            while stack:
                value, place, lead_s, due_s = stack[-1]
                if self._left[place] and begin_s + lead_s <= due_s:
                    if value > most or (value == most and place < best):
                        most, best = value, place
                    break
                stack.pop()
        return best if best >= 0 else self._first_left()

    def _first_left(self) -> int | None:
        while self._first < len(self._places) and not self._left[self._places[self._first]]:
            self._first += 1
        return self._places[self._first] if self._first < len(self._places) else None


def _stacked(
    found: InstanceModel, groups: Sequence[GroupSpec], places: Sequence[int]
) -> tuple[list[_Batch], list[_Batch]]:
    """All batches of one model: with the model loaded, and behind its load."""
    sums = [(max(1, group.count), group.prompt_tokens, group.output_mean, group.due_s) for group in groups]
    count, prompt_tokens, output_mean, due_s = np.array(sums, dtype=np.float64).T
    width = np.minimum(count, max(1, found.slots))
    prefill_s, decode_s = _seconds(found.pace, count, prompt_tokens, output_mean, width, np.ceil(count / width))
    lead_s, at = prefill_s / count, np.array(places)

    def stack(load_s: float) -> list[_Batch]:
        value: Floats = count / np.maximum(1e-9, load_s + prefill_s + decode_s)
        rising = np.lexsort((-at, value))
        return list(zip(*[each[rising].tolist() for each in (value, at, lead_s, due_s)], strict=True))

    return stack(0.0), stack(found.load_s)


def goodput(spec: InstanceSpec, group: GroupSpec, now_s: float) -> float:
    """Requests on time for each second of the batch, were it begun now; 0: its first token would be late."""
    found = spec.of(group.model)
    assert found is not None
    count = max(1, group.count)
    width = min(count, max(1, found.slots))
    prefill_s, decode_s = _seconds(
        found.pace, count, group.prompt_tokens, group.output_mean, width, ceil(count / width)
    )
    load_s = 0.0 if group.model == spec.model else found.load_s
    if now_s + load_s + prefill_s / count > group.due_s:
        return 0.0
    return count / max(1e-9, load_s + prefill_s + decode_s)


def _seconds(pace: Pace, count: N, prompt_tokens: N, output_mean: N, width: N, waves: N) -> tuple[N, N]:
    """To prefill and to decode so many requests, `width` at once in `waves`. Of one batch, or of many."""
    return prompt_tokens * pace.prefill_token_s, waves * output_mean / count * (pace.step_s + pace.sequence_s * width)
