"""What a plan costs: the timeline of every queue, who is late in it, and how late.

A group's service is its tokens at the instance's throughput with a full batch (QLM, arXiv 2407.00047, equation 2):
prompt_tokens x prefill_token_s + output_mean x (step_s + slots x sequence_s) / slots, and the next group begins then.

A model change takes the load, and before it the previous group's stragglers: QLM's program has the whole completion
time there. Here it is half an output's decoding at a half empty batch, more for a group that never fills it: the last
request to start has its output before it while slots around it fall empty; the work that it shares with them is in
the service. Stragglers run on while the next group of their model is served.

Who is late: a group's requests begin evenly over its service, in the order in which they are due. All waits count `z`
standard deviations longer, those of the group's middle request: of all that is served before it and of half of its
own group (the chance constraint). The late share of the group then is a straight line of its start, cut at 0 and 1,
and its tardiness that of its middle request.

Cost: the sum over groups of count x (late share + 0.1 x min(tardiness / target, 10) + 0.0001 x wait / target), and 0.01
a swap. The wait decides between plans in which all are in time: whoever was promised more goes first, since waits are
never as expected, and else the plan that ends early is cheaper.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from headrace.core.instance import Pace
from headrace.core.planning.problem import GroupSpec, InstanceModel, InstanceSpec, Problem

# Of a request that is one target late, beside 1 for being late at all.
TARDY_WEIGHT = 0.1
TARDY_TARGETS_MOST = 10.0
SWAP_COST = 0.01
WAIT_COST = 1e-3  # of what the same seconds of tardiness cost
WIDTH_LEAST_S = 1e-9  # the requests of a narrower group are late all at once
# Of an instance that says nothing of itself: any pace ranks queues by their work, which is all that is left to go by.
PACE_UNKNOWN = Pace(step_s=0.03, sequence_s=1e-4, prefill_token_s=1e-4)

N = TypeVar("N", float, NDArray[np.float64])


class Work(NamedTuple):
    """A group on an instance, as far as cost is concerned."""

    model: int
    service_s: float
    service_var: float
    own_var: float  # of the middle request's wait for its own group
    offset_s: float  # from the group's begin (margin included) to the lateness of its latest request
    width_s: float  # between the least and the most late of its requests
    straggler_s: float
    requests: float
    tardy: float  # cost of a second of tardiness, for all its requests
    tardy_most: float


_NEVER = Work(-1, inf, 0.0, 0.0, inf, 1.0, 0.0, 1, 0.0, 0.0)  # of a model that the instance cannot serve


class Rate(NamedTuple):
    """How fast a model is served on an instance."""

    model: int
    token_s: float  # of a full batch
    prefill_token_s: float
    step_s: float
    sequence_s: float
    slots: int


class State(NamedTuple):
    """An instance after some groups: when the next may begin, how sure, and what they cost."""

    time_s: float
    var: float
    model: int
    straggler_s: float
    cost: float


@dataclass(frozen=True, slots=True)
class Site:
    """An instance with numbers for names."""

    start: State
    load_s: tuple[float, ...]  # by model; inf: it cannot serve that one


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a plan means for a group."""

    group: int
    instance: int
    begin_s: float  # when its first request begins, on average
    margin_s: float  # to be added for the chance constraint
    late_share: float
    tardiness_s: float  # of its middle request, margin included
    swap: bool  # a model change comes before it


class Terms:
    """A problem with everything looked up. Groups are numbered by rising id, so that their order of arrival in the
    problem does not matter; those that no instance can serve are `left_out`."""

    def __init__(self, problem: Problem) -> None:
        served = {name.model for instance in problem.instances for name in instance.models}
        names = {name: number for number, name in enumerate(sorted(served | {i.model for i in problem.instances}))}
        self.problem = problem
        self.z = problem.z
        self.sites = [site_of(instance, names) for instance in problem.instances]
        serving = {model: _serving(problem, model) for model in served}
        places = [
            (group, _places(group, serving.get(group.model, [])))
            for group in sorted(problem.groups, key=lambda group: group.id)
        ]
        self.groups = [group for group, sites in places if sites]
        self.left_out = [group.id for group, sites in places if not sites]
        self.works = [_works(self.groups, instance, names, problem.drain_share) for instance in problem.instances]
        self.allowed = [sites for _, sites in places if sites]
        self.pinned = self._pinned()

    def _pinned(self) -> list[list[int]]:
        """For each instance the groups that stay at its head, in their order."""
        heads: list[list[int]] = [[] for _ in self.sites]
        for number, group in enumerate(self.groups):
            if group.pinned:
                heads[self.allowed[number][0]].append(number)
        for head in heads:
            head.sort(key=self.standing)
        return heads

    def standing(self, number: int) -> tuple[float, float, int]:
        """Where a group stands in its queue now; by due time where that is unknown."""
        group = self.groups[number]
        return (group.position if group.position >= 0 else inf, group.due_s, group.id)

    def run(self, site: int, order: Iterable[int], state: State, limit: float = inf) -> State:
        """The state after `order`, from `state` on; any state that costs more as soon as the cost passes `limit`."""
        time_s, var, model, straggler_s, cost = state
        works, load_s, z = self.works[site], self.sites[site].load_s, self.z
        for number in order:
            wanted, service_s, service_var, own_var, offset_s, width_s, after_s, count, tardy, most = works[number]
            if wanted != model:
                time_s += straggler_s + load_s[wanted]
                cost += SWAP_COST
                model, straggler_s = wanted, 0.0
            begin_s = time_s + z * sqrt(var + own_var)
            cost += WAIT_COST * tardy * begin_s
            late_s = begin_s + offset_s
            if late_s > 0.0:
                cost += count if late_s >= width_s else count * late_s / width_s
                tardiness_s = late_s - 0.5 * width_s
                if tardiness_s > 0.0:
                    cost += min(tardy * tardiness_s, most)
            if cost > limit:
                break
            time_s += service_s
            var += service_var
            straggler_s = max(after_s, straggler_s - service_s)
        return State(time_s, var, model, straggler_s, cost)

    def cost(self, queues: Sequence[Sequence[int]]) -> float:
        return sum(self.run(site, queue, self.sites[site].start).cost for site, queue in enumerate(queues))

    def ids(self, queues: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(self.groups[number].id for number in queue) for queue in queues)

    def numbers(self, queues: Sequence[Sequence[int]]) -> list[list[int]]:
        """Back from ids."""
        by_id = {group.id: number for number, group in enumerate(self.groups)}
        return [[by_id[each] for each in queue] for queue in queues]


def plan_cost(problem: Problem, queues: Sequence[Sequence[int]]) -> float:
    """Of group ids, first to last for each instance."""
    terms = Terms(problem)
    return terms.cost(terms.numbers(queues))


def outlook(problem: Problem, queues: Sequence[Sequence[int]]) -> list[Outlook]:
    """What the plan means for each of its groups, queue by queue."""
    terms = Terms(problem)
    found = []
    for site, queue in enumerate(terms.numbers(queues)):
        state = terms.sites[site].start
        for number in queue:
            work = terms.works[site][number]
            swap = work.model != state.model
            begin_s = state.time_s + (state.straggler_s + terms.sites[site].load_s[work.model] if swap else 0.0)
            margin_s = terms.z * sqrt(state.var + work.own_var)
            late_s = begin_s + margin_s + work.offset_s
            share = min(1.0, max(0.0, late_s / work.width_s))
            tardiness_s = max(0.0, late_s - 0.5 * work.width_s)
            found.append(Outlook(terms.groups[number].id, site, begin_s, margin_s, share, tardiness_s, swap))
            state = terms.run(site, (number,), state)
    return found


def site_of(instance: InstanceSpec, names: dict[str, int]) -> Site:
    load_s = [inf] * len(names)
    slowest_s = max((each.load_s for each in instance.models), default=0.0)
    for each in instance.models:
        load_s[names[each.model]] = each.load_s
    if instance.of(instance.model) is not None and load_s[names[instance.model]] == 0.0:
        load_s[names[instance.model]] = slowest_s
    busy_s = max(0.0, instance.idle_s - instance.ready_s)
    start = State(instance.ready_s, instance.ready_var, names[instance.model], busy_s, 0.0)
    return Site(start, tuple(load_s))


def rate_of(instance: InstanceSpec, model: str, names: dict[str, int]) -> Rate | None:
    """None: the instance cannot serve it."""
    found = instance.of(model)
    if found is None:
        return None
    pace, slots = pace_of(found), max(1, found.slots)
    token_s = (pace.step_s + slots * pace.sequence_s) / slots
    return Rate(names[model], token_s, pace.prefill_token_s, pace.step_s, pace.sequence_s, slots)


def work_of(group: GroupSpec, rate: Rate, drain_share: float = 1.0) -> Work:
    model, token_s, prefill_token_s, step_s, sequence_s, slots = rate
    count = max(1, group.count)
    prefill_s = group.prompt_tokens * prefill_token_s
    service_s = prefill_s + group.output_mean * token_s
    service_var = group.output_var * token_s * token_s
    behind = (count - 1) / count  # of the group's work lies before its last request
    spread_s = service_s * behind - group.due_spread_s
    straggler_s = drain_share * stragglers_s(group.output_mean / count, step_s, sequence_s, slots, min(count, slots))
    return Work(
        model,
        service_s,
        service_var,
        0.5 * behind * service_var,
        prefill_s / count + max(0.0, spread_s) - group.due_s,
        max(WIDTH_LEAST_S, abs(spread_s)),
        straggler_s,
        count,
        TARDY_WEIGHT * count / max(group.target_s, WIDTH_LEAST_S),
        TARDY_WEIGHT * count * TARDY_TARGETS_MOST,
    )


def _works(
    groups: Sequence[GroupSpec], instance: InstanceSpec, names: dict[str, int], drain_share: float
) -> list[Work]:
    rates = {model: rate_of(instance, model, names) for model in dict.fromkeys([group.model for group in groups])}
    found = []
    for group in groups:
        rate = rates[group.model]
        found.append(work_of(group, rate, drain_share) if rate is not None else _NEVER)
    return found


def stragglers_s(output: float, step_s: N, sequence_s: N, slots: N, width: N) -> N:
    """How long the batch goes on after a group's service; see the head of the file. `output`: tokens of one request;
    `width`: of its requests at once. Of one instance, or of many."""
    return output * (step_s + sequence_s * width / 2) * (1 - width / (2 * slots))


def pace_of(found: InstanceModel) -> Pace:
    return found.pace if found.pace != Pace() else PACE_UNKNOWN


def _serving(problem: Problem, model: str) -> list[int]:
    return [site for site, instance in enumerate(problem.instances) if instance.of(model) is not None]


def _places(group: GroupSpec, serving: list[int]) -> list[int]:
    """The instances that may serve a group, the one where it is pinned or bound alone."""
    bounds = [bound for bound in (group.instance if group.pinned else -1, group.only) if bound >= 0]
    return [site for site in serving if site == bounds[-1]] if bounds else serving
