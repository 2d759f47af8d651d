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

from headrace.core.planning.board import Board, Floats, Place
from headrace.core.planning.cost import Terms
from headrace.core.planning.listing import loose, served_by
from headrace.core.planning.problem import GroupSpec, InstanceSpec, Plan, Problem


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
        groups = [terms.groups[number] for number in order]
        allowed = [[site in terms.allowed[n] for n in order] for site in range(len(queues))]
        sites = [_Site(spec, groups, may) for spec, may in zip(problem.instances, allowed, strict=True)]
        for _ in order:
            able = [g for g, site in enumerate(sites) if site.waiting]
            at = min(able, key=lambda g: (states[g].time_s, g))
            model = terms.groups[queues[at][-1]].model if queues[at] else problem.instances[at].model
            best = sites[at].best(states[at].time_s, model)
            queues[at].append(order[best])
            states[at] = terms.run(at, (order[best],), states[at])
            for site in sites:
                site.take(best)
        return Plan(problem.version, terms.ids(queues), terms.cost(queues), solver=self.name)


class _Site:
    """All batches at one instance, in arrays: what goodput() says of each."""

    def __init__(self, spec: InstanceSpec, groups: Sequence[GroupSpec], allowed: Sequence[bool]) -> None:
        self._left = np.array(allowed, dtype=np.bool_)
        self.waiting = sum(allowed)
        never = (1, 0.0, 0.0, 0.0, 0.0)
        rows = [_batch(spec, group) if may else never for group, may in zip(groups, allowed, strict=True)]
        self._count, self._load_s, self._prefill_s, self._decode_s, self._due_s = np.array(rows).reshape(-1, 5).T
        self._model = np.array([group.model for group in groups])

    def best(self, now_s: float, loaded: str) -> int:
        """Of those left: the most goodput; of equals the first."""
        load_s = np.where(self._model == loaded, 0.0, self._load_s)
        late = now_s + load_s + self._prefill_s / self._count > self._due_s
        values: Floats = self._count / np.maximum(1e-9, load_s + self._prefill_s + self._decode_s)
        values[late] = 0.0
        values[~self._left] = -1.0
        return int(values.argmax())

    def take(self, batch: int) -> None:
        """It is served, here or elsewhere."""
        self.waiting -= bool(self._left[batch])
        self._left[batch] = False


def goodput(spec: InstanceSpec, group: GroupSpec, now_s: float) -> float:
    """Requests on time for each second of the batch, were it begun now; 0: its first token would be late."""
    count, load_s, prefill_s, decode_s, due_s = _batch(spec, group)
    if group.model == spec.model:
        load_s = 0.0
    if now_s + load_s + prefill_s / count > due_s:
        return 0.0
    return count / max(1e-9, load_s + prefill_s + decode_s)


def _batch(spec: InstanceSpec, group: GroupSpec) -> tuple[int, float, float, float, float]:
    """Requests, seconds to load its model, to prefill and to decode, and when it is due."""
    found = spec.of(group.model)
    assert found is not None
    count, pace = max(1, group.count), found.pace
    width = min(count, max(1, found.slots))
    prefill_s = group.prompt_tokens * pace.prefill_token_s
    decode_s = ceil(count / width) * group.output_mean / count * (pace.step_s + pace.sequence_s * width)
    return count, found.load_s, prefill_s, decode_s, group.due_s
