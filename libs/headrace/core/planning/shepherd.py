"""Like SHEPHERD (NSDI 2023), as QLM compares with it: batches with the most goodput first, and few preemptions.

A batch is a group, and it is served as one: its latency is that of its prefill and of decoding a usual output at its
own width, wave after wave. Goodput is requests on time for each second of that. An instance takes the batch with the
most goodput that can still be on time; late ones go behind all others. A new batch preempts a running one only if its
goodput is `factor` times as high.
"""

from dataclasses import dataclass
from math import ceil

from headrace.core.planning.board import Board, Place
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
        left = sorted(loose(terms), key=lambda number: (terms.groups[number].due_s, number))
        while left:
            able = {site for number in left for site in terms.allowed[number]}
            site = min(able, key=lambda site: (states[site].time_s, site))
            here, spec = [n for n in left if site in terms.allowed[n]], problem.instances[site]
            loaded = next((n for n in reversed(queues[site])), None)
            model = terms.groups[loaded].model if loaded is not None else spec.model
            values = {n: goodput(spec, terms.groups[n], states[site].time_s, model) for n in here}
            best = max(here, key=lambda n: (values[n], -terms.groups[n].due_s, -n))
            queues[site].append(best)
            states[site] = terms.run(site, (best,), states[site])
            left.remove(best)
        return Plan(problem.version, terms.ids(queues), terms.cost(queues), solver=self.name)


def goodput(spec: InstanceSpec, group: GroupSpec, now_s: float, loaded: str | None = None) -> float:
    """Requests on time for each second of the batch, were it begun now; 0: its first token would be late. `loaded`: the
    model before it, where that is known."""
    found = spec.of(group.model)
    assert found is not None
    count, pace = max(1, group.count), found.pace
    load_s = found.load_s if (loaded or spec.model) != group.model else 0.0
    width = min(count, max(1, found.slots))
    prefill_s = group.prompt_tokens * pace.prefill_token_s
    decode_s = ceil(count / width) * group.output_mean / count * (pace.step_s + pace.sequence_s * width)
    if now_s + load_s + prefill_s / count > group.due_s:
        return 0.0
    return count / max(1e-9, load_s + prefill_s + decode_s)
