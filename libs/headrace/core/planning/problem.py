"""What a planner is given and what it answers: request groups, instances, and an order of groups for each instance.

Times are seconds from the moment of planning. A group is served at full batch: its work takes the instance's throughput
for a while, and the groups behind it wait as long (QLM, arXiv 2407.00047, equation 2).
"""

from dataclasses import dataclass

from headrace.core.instance import Pace


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """Requests of one model, target and size that wait together. All sums are over the `count` requests."""

    id: int
    model: str
    count: int
    due_s: float  # when the first token of its most urgent request is due; negative: it is late already
    target_s: float  # what such a request is promised: the scale on which lateness is felt
    prompt_tokens: float  # to prefill
    output_mean: float  # tokens to decode
    output_var: float  # tokens squared
    instance: int = -1  # where it stands now, an index into Problem.instances; -1: nowhere
    only: int = -1  # the one instance that may serve it (its KV caches lie there); -1: any that can
    pinned: bool = False  # it has begun there and stays, at the head: it may not be moved or overtaken there
    position: int = -1  # in the queue where it stands now, from 0; -1: unknown. Orders several pinned groups.
    due_spread_s: float = 0.0  # the last request is due so much later than the first one


@dataclass(frozen=True, slots=True)
class InstanceModel:
    """A model on an instance: what serving it there would be like."""

    model: str
    load_s: float  # until it serves. Of the loaded one: what coming back would take; 0: as long as the slowest other
    slots: int  # sequences at once, as far as KV room allows for requests of a usual size
    pace: Pace


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    id: str
    model: str  # loaded, or being loaded
    models: tuple[InstanceModel, ...]  # all that it can serve, the loaded one included
    ready_s: float = 0.0  # until the running requests have made room, or loading is over
    ready_var: float = 0.0  # seconds squared
    idle_s: float = 0.0  # until nothing runs there that a model change would have to wait for; at least ready_s

    def of(self, model: str) -> InstanceModel | None:
        for each in self.models:
            if each.model == model:
                return each
        return None


@dataclass(frozen=True, slots=True)
class Problem:
    version: int  # of the instances and what they hold: a plan of another version is not applied
    groups: tuple[GroupSpec, ...]
    instances: tuple[InstanceSpec, ...]
    z: float = 1.28  # standard deviations that count as waiting: 1.28 keeps nine of ten promises (chance constraint)
    drain_share: float = 1.0  # of its stragglers' time that a model change waits for; 0: they are evicted


@dataclass(frozen=True, slots=True)
class Plan:
    """queues[i]: the group ids of instance i, first to last. Groups that no instance can serve are in none."""

    version: int
    queues: tuple[tuple[int, ...], ...]
    cost: float = 0.0  # as headrace.core.planning.cost counts it
    optimal: bool = False  # proven
    solver: str = ""
    bound: float = 0.0  # no plan costs less, as far as the solver knows
