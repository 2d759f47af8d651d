"""The queues of all instances as they stand, kept from one decision to the next, in arrays.

All queues lie behind one another in one block of columns, so that a question about all groups takes a few dozen array
operations however many instances there are. All times, also `due_s` and `ready_s`, are on the caller's one clock; what
they cost is what headrace.core.planning.cost counts. A change of the instances' models is a new board.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.core.planning.cost import WAIT_COST, Site, Work, rate_of, site_of, work_of
from headrace.core.planning.guest import Guest, Rates, columns_of, guest_of, rates_of
from headrace.core.planning.problem import GroupSpec, InstanceSpec, Problem

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
_GROWTH = 64
SERVICE, VAR, OWN, OFFSET, WIDTH, STRAGGLER, COUNT, TARDY, MOST, LOAD, MODEL, SITE = range(12)


class Place(NamedTuple):
    instance: int
    position: int  # in its queue, from 0


@dataclass(frozen=True, slots=True)
class Timeline:
    """By position in the block; `end_*` by instance: when a queue is through, and in which state it leaves it."""

    begin_s: Floats  # of service, on average
    var: Floats  # of begin_s
    wait_s: Floats  # begin and margin, from now on
    late_s: Floats  # of the group's latest request
    cost: Floats
    swap: NDArray[np.bool_]  # before it
    before_model: Floats
    before_straggler_s: Floats
    end_s: Floats
    end_var: Floats
    end_model: Floats
    end_straggler_s: Floats


class Board:
    def __init__(self, instances: Sequence[InstanceSpec], z: float = 1.28, drain_share: float = 1.0) -> None:
        served = {each.model for instance in instances for each in instance.models} | {i.model for i in instances}
        self.names = {name: number for number, name in enumerate(sorted(served))}
        self.instances = list(instances)
        self.z = z
        self.drain_share = drain_share
        self.groups: dict[int, GroupSpec] = {}
        self.first: Numbers = np.zeros(len(instances) + 1, dtype=np.int64)  # of each queue, in the block
        self._ids: list[int] = []
        self._at: dict[int, int] = {}  # the instance of each group
        self._block: Floats = np.zeros((12, _GROWTH))
        self._sites = [site_of(instance, self.names) for instance in instances]
        self._rates: dict[str, Rates] = {}
        self._start: Floats = np.array([self._start_of(site) for site in self._sites]).reshape(-1, 4).T.copy()

    @classmethod
    def of(cls, problem: Problem, queues: Sequence[Sequence[int]]) -> "Board":
        """A problem and an order of its groups; its clock is at 0 at the moment of planning."""
        board = cls(problem.instances, problem.z, problem.drain_share)
        by_id = {group.id: group for group in problem.groups}
        board._ids = [each for queue in queues for each in queue]
        if board._ids:
            board.groups = {each: by_id[each] for each in board._ids}
            lengths = [len(queue) for queue in queues]
            np.cumsum(lengths, out=board.first[1:])
            sites = np.repeat(np.arange(len(queues)), lengths)
            board._at = dict(zip(board._ids, sites.tolist(), strict=True))
            rates = {model: board._rates_of(model) for model in dict.fromkeys(g.model for g in board.groups.values())}
            columns = columns_of(list(board.groups.values()), sites, rates, problem.drain_share)
            board._block = np.pad(columns, ((0, 0), (0, _GROWTH)))
        return board

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def columns(self) -> Floats:
        return self._block[:, : len(self._ids)]

    def put(self, place: Place, group: GroupSpec) -> None:
        """The instance can serve it, and the place is in or at the end of its queue."""
        work = self.work(place.instance, group)
        assert work is not None, f"{group.model} is not served by {self.instances[place.instance].id}"
        at = int(self.first[place.instance]) + place.position
        assert at <= self.first[place.instance + 1], f"no place {place}"
        size = len(self._ids)
        if size == self._block.shape[1]:
            self._block = np.pad(self._block, ((0, 0), (0, size)))
        self._block[:, at + 1 : size + 1] = self._block[:, at:size].copy()
        self._block[:, at] = self._column(place.instance, work)
        self._ids.insert(at, group.id)
        self.first[place.instance + 1 :] += 1
        self._at[group.id] = place.instance
        self.groups[group.id] = group

    def remove(self, group: int) -> None:
        instance, at = self._at.pop(group), self._index(group)
        size = len(self._ids)
        self._block[:, at : size - 1] = self._block[:, at + 1 : size].copy()
        del self._ids[at], self.groups[group]
        self.first[instance + 1 :] -= 1

    def change(self, group: GroupSpec) -> None:
        """It has more or fewer requests than before, and stays where it is."""
        instance = self._at[group.id]
        work = self.work(instance, group)
        assert work is not None
        self._block[:, self._index(group.id)] = self._column(instance, work)
        self.groups[group.id] = group

    def set_ready(self, instance: int, ready_s: float, ready_var: float = 0.0, idle_s: float = 0.0) -> None:
        spec = replace(self.instances[instance], ready_s=ready_s, ready_var=ready_var, idle_s=idle_s)
        self.instances[instance] = spec
        self._sites[instance] = site_of(spec, self.names)
        self._start[:, instance] = self._start_of(self._sites[instance])

    def place(self, group: int) -> Place | None:
        instance = self._at.get(group)
        return None if instance is None else Place(instance, self._index(group) - int(self.first[instance]))

    def queue(self, instance: int) -> list[int]:
        return self._ids[self.first[instance] : self.first[instance + 1]]

    def heads(self, instance: int) -> int:
        """How many groups at its head are pinned."""
        queue = self._ids[self.first[instance] : self.first[instance + 1]]
        return next((n for n, each in enumerate(queue) if not self.groups[each].pinned), len(queue))

    def work(self, instance: int, group: GroupSpec) -> Work | None:
        """None: the instance cannot serve it."""
        rate = rate_of(self.instances[instance], group.model, self.names) if self.serves(instance, group) else None
        return work_of(group, rate, self.drain_share) if rate is not None else None

    def serves(self, instance: int, group: GroupSpec) -> bool:
        bound = group.instance if group.pinned else group.only
        return bound in (-1, instance) and self.instances[instance].of(group.model) is not None

    def guest(self, group: GroupSpec) -> Guest:
        """The group on all instances: work() in arrays."""
        return guest_of(group, self._rates_of(group.model), self.drain_share)

    def _rates_of(self, model: str) -> Rates:
        if model not in self._rates:
            self._rates[model] = rates_of(model, self.instances, self.names)
        return self._rates[model]

    def load_s(self, instance: int, model: int) -> float:
        return self._sites[instance].load_s[model]

    def timeline(self, now_s: float) -> Timeline:
        """Of every group and queue, as of now: what was ready before is ready now."""
        block = self.columns
        starts, lengths = self.first[:-1], np.diff(self.first)
        filled = np.flatnonzero(lengths)
        heads = starts[filled]
        ready_s = np.maximum(self._start[0], now_s)
        busy_s = np.maximum(0.0, self._start[3] - ready_s)
        before_model, before_straggler_s = np.empty(len(self)), np.empty(len(self))
        before_model[1:], before_model[heads] = block[MODEL, :-1], self._start[2, filled]
        swap = before_model != block[MODEL]
        straggler_s = _stragglers(block, swap, heads, busy_s[filled])
        before_straggler_s[1:], before_straggler_s[heads] = straggler_s[:-1], busy_s[filled]
        lead_s = swap * (before_straggler_s + block[LOAD])
        step_s = lead_s + block[SERVICE]
        done_s, done_var = _sums(step_s), _sums(block[VAR])
        base_s, base_var = ready_s - done_s[starts], self._start[1] - done_var[starts]
        begin_s = done_s[:-1] + lead_s + np.repeat(base_s, lengths)
        var = done_var[:-1] + np.repeat(base_var, lengths)
        wait_s = begin_s + self.z * np.sqrt(np.maximum(var + block[OWN], 0.0))
        late_s = wait_s + block[OFFSET]
        wait_s = wait_s - now_s
        ends = self.first[1:]
        end_model, end_straggler_s = self._start[2].copy(), busy_s
        end_model[filled], end_straggler_s[filled] = block[MODEL, ends[filled] - 1], straggler_s[ends[filled] - 1]
        return Timeline(
            begin_s,
            var,
            wait_s,
            late_s,
            costs(block, wait_s, late_s),
            swap,
            before_model,
            before_straggler_s,
            done_s[ends] + base_s,
            done_var[ends] + base_var,
            end_model,
            end_straggler_s,
        )

    def late_share(self, now_s: float) -> list[tuple[int, float]]:
        """Of each group, queue by queue: the share of its requests that begin too late."""
        shares = np.clip(self.timeline(now_s).late_s / self.columns[WIDTH], 0.0, 1.0)
        return list(zip(self._ids, shares.tolist(), strict=True))

    def _index(self, group: int) -> int:
        instance = self._at.get(group, 0)
        return self._ids.index(group, int(self.first[instance]))

    def _column(self, instance: int, work: Work) -> list[float]:
        model, service_s, service_var, own_var, offset_s, width_s, straggler_s, count, tardy, most = work
        load_s = self._sites[instance].load_s[model]
        return [
            service_s, service_var, own_var, offset_s, width_s, straggler_s, count, tardy, most, load_s, model, instance
        ]  # fmt: skip

    def _start_of(self, site: Site) -> tuple[float, float, float, float]:
        start = site.start
        return (start.time_s, start.var, float(start.model), start.time_s + start.straggler_s)


def costs(block: Any, wait_s: Floats, late_s: Floats) -> Floats:
    """Of each group, without swaps; columns of `block` beside waits and latenesses of the same shape."""
    share = np.minimum(np.maximum(late_s / block[WIDTH], 0.0), 1.0)
    tardy = np.maximum(late_s - 0.5 * block[WIDTH], 0.0)
    tardy *= block[TARDY]
    share *= block[COUNT]
    share += WAIT_COST * block[TARDY] * wait_s
    found: Floats = share + np.minimum(tardy, block[MOST])
    return found


def _stragglers(block: Floats, swap: NDArray[np.bool_], heads: Numbers, busy_s: Floats) -> Floats:
    """How long stragglers run on after each group: its own, or those before it in the same run of one model.

    The largest of (end + stragglers) so far, where only services count; each run is lifted above the ones before it.
    """
    if not len(swap):
        return np.empty(0)
    own_s = block[STRAGGLER].copy()
    own_s[heads] = np.maximum(own_s[heads], np.where(swap[heads], 0.0, busy_s - block[SERVICE, heads]))
    run = swap.astype(np.float64)
    run[heads] = 1.0
    level = np.cumsum(run) * (float(own_s.max()) + 1.0) + np.cumsum(block[SERVICE])
    found: Floats = np.maximum.accumulate(own_s + level) - level
    return found


def _sums(values: Floats) -> Floats:
    """Of all that lies before each place, the end included."""
    found = np.empty(len(values) + 1)
    found[0] = 0.0
    np.cumsum(values, out=found[1:])
    return found
