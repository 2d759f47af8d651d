"""Virtual queues: for each LLM instance the request groups that it will serve, in order.

The structure alone: who joins which group, where groups stand, who is next. What a good order is the planner says
(planning.py), when a worker takes something serving.py.
"""

from collections.abc import Iterator, Mapping, Sequence

from headrace.core.queue.groups import (
    Group,
    Kind,
    KindKey,
    flow_of,
    size_octaves,
    target_octaves,
)
from headrace.core.queue.job import Job
from headrace.core.queue.shares import Shares
from headrace.core.slo import effective_target_s
from headrace.core.waiting.work import NOTHING, Work


class VirtualQueue:
    __slots__ = ("groups", "worker")

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self.groups: list[Group] = []


class VirtualQueues:
    def __init__(self, half_life_s: float, flows_max: int, *, fair: bool) -> None:
        self.kinds: dict[KindKey, Kind] = {}
        self.groups: dict[int, Group] = {}
        self.queues: dict[str, VirtualQueue] = {}  # by worker
        self.nowhere: dict[int, Group] = {}  # new, or without an instance that could serve them
        self.shares: dict[str, Shares] = {}  # by SLO class
        self.changed: set[int] = set()  # groups that came, went, moved, grew or shrank since they were last looked at
        self.joined: list[Job] = []  # since they were last looked at: their waits are to be estimated
        self._half_life_s = half_life_s
        self._flows_max = flows_max
        self.fair = fair
        self._numbers = 0
        self._size = 0

    def __len__(self) -> int:
        """Requests that wait."""
        return self._size

    # --- requests come and go ---

    def push(
        self, job: Job, left: tuple[float, float], ttft_s: float, group_max: int, slots: float, owner: str
    ) -> None:
        """left: mean and variance of the tokens to come. slots: the room that it takes, in requests of usual size.
        owner: the worker that keeps its KV cache; empty: it has not begun."""
        assert not job.ticket, f"{job.key} stands in line already"
        target_s = effective_target_s(ttft_s, job.request.priority)
        due_s = job.due_s if owner else job.request.accepted_s + target_s
        prompt_tokens = 0 if owner else job.request.prompt.kv_tokens
        key = KindKey(
            job.request.model,
            job.request.slo_class,
            job.request.priority,
            target_octaves(target_s),
            size_octaves(prompt_tokens, left[0]),
            owner,
        )
        kind = self.kinds.get(key)
        if kind is None:
            kind = self.kinds[key] = Kind(key)
        if self.fair and flow_of(job) not in kind.flows:
            self._lift(kind, job)
        kind.add(job)
        group = kind.open
        if group is None or not group.takes(due_s, group_max):
            group = kind.open = self._open(kind, due_s, target_s)
        group.add(job, Work.of(*left, prompt_tokens, slots), due_s)
        job.ticket = group.id
        self.changed.add(group.id)
        self._size += 1
        self.joined.append(job)

    def _open(self, kind: Kind, due_s: float, target_s: float) -> Group:
        self._numbers += 1
        group = self.groups[self._numbers] = self.nowhere[self._numbers] = Group(self._numbers, kind, due_s, target_s)
        return group

    def leave(self, job: Job) -> None:
        group = job.group
        assert group is not None, f"{job.key} stands in no group"
        kind = group.kind
        job.ticket = 0
        self.changed.add(group.id)
        self._size -= 1
        group.remove(job)
        kind.discard(job)
        if not group.jobs:
            self._close(group)
        if not kind.flows:
            del self.kinds[kind.key]

    def _close(self, group: Group) -> None:
        del self.groups[group.id]
        if group.kind.open is group:
            group.kind.open = None
        if group.worker:
            self.queues[group.worker].groups.remove(group)
        else:
            del self.nowhere[group.id]

    # --- groups are put somewhere ---

    def place(self, group: Group, worker: str, position: int) -> None:
        """Into a virtual queue; out of another one first, if it stands there."""
        self.take_out(group)
        del self.nowhere[group.id]
        queue = self.queues[worker]
        queue.groups.insert(position, group)
        self.changed.add(group.id)
        group.worker = worker

    def arrange(self, orders: Mapping[str, Sequence[Group]]) -> None:
        """A plan: these groups to the heads of these workers' queues, wherever they stand. As place() one by one, but
        nobody is looked for in a line."""
        ids = {group.id for groups in orders.values() for group in groups}
        for queue in self.queues.values():
            queue.groups = [group for group in queue.groups if group.id not in ids]
        for worker, groups in orders.items():
            self.queues[worker].groups[:0] = groups
            for group in groups:
                group.worker = worker
                self.nowhere.pop(group.id, None)
        self.changed |= ids

    def take_out(self, group: Group) -> None:
        if group.worker:
            self.queues[group.worker].groups.remove(group)
            self.changed.add(group.id)
            group.worker = ""
            self.nowhere[group.id] = group

    def keep_instances(self, workers: list[str]) -> None:
        """These instances there are; the groups of others stand nowhere."""
        wanted = set(workers)
        for worker in [worker for worker in self.queues if worker not in wanted]:
            for group in list(self.queues[worker].groups):
                self.take_out(group)
            del self.queues[worker]
        for worker in workers:
            self.queues.setdefault(worker, VirtualQueue(worker))

    # --- who is next ---

    def head_of(self, queue: VirtualQueue, now_s: float) -> Group:
        """The first group; or, where one of another size has somebody who was served less, the first of those.

        Only the expected size tells such kinds apart: without this a long queue of one tenant's short answers would
        all go before another tenant's longer ones.
        """
        first = queue.groups[0]
        if not self.fair or first.kind.key.owner or len(self.kinds) == 1:
            return first
        alike = [kind for kind in self.kinds.values() if kind.alike == first.kind.alike]
        if len(alike) == 1:
            return first
        shares = self.shares_of(first.kind.key.slo_class)
        least = {id(kind): self._least_served(kind, shares, now_s) for kind in alike}
        if min(least.values()) == least[id(first.kind)]:
            return first
        return min(
            (group for group in queue.groups if id(group.kind) in least),
            key=lambda group: (least[id(group.kind)], group is not first),
        )

    def _least_served(self, kind: Kind, shares: Shares, now_s: float) -> float:
        return min(shares.claim(flow, now_s)[0] for flow in kind.flows)

    def next_of(self, group: Group, now_s: float) -> Job:
        """The first of whom was served least, tenant before flow, among all that wait of the group's kind."""
        flows = group.kind.flows
        if len(flows) == 1 or not self.fair:
            return next(iter(group.jobs.values()))
        shares = self.shares_of(group.kind.key.slo_class)
        least = min(flows, key=lambda flow: (shares.claim(flow, now_s), flow))
        return next(iter(flows[least].values()))

    def shares_of(self, slo_class: str) -> Shares:
        shares = self.shares.get(slo_class)
        if shares is None:
            shares = self.shares[slo_class] = Shares(self._half_life_s, self._flows_max)
        return shares

    def _lift(self, kind: Kind, job: Job) -> None:
        if kind.flows:
            self.shares_of(kind.key.slo_class).lift_both(flow_of(job), kind.flows, job.ready_s)

    # --- questions ---

    def waiting_for(self, model: str) -> Iterator[str]:
        """Request ids, queue by queue."""
        for queue in self.queues.values():
            for group in queue.groups:
                if group.model == model:
                    yield from group.jobs
        for group in self.nowhere.values():
            if group.model == model:
                yield from group.jobs

    def ahead_of(self, group: Group) -> Work:
        """What stands before it in its virtual queue."""
        ahead = NOTHING
        for other in self._before(group):
            ahead += other.work
        return ahead

    def position(self, job: Job) -> int:
        """How many stand before it, as far as the order within its kind stays as it is. Walks the queue."""
        group = job.group
        assert group is not None, f"{job.key} stands in no group"
        before = sum(len(other.jobs) for other in self._before(group))
        for request_id in group.jobs:
            if request_id == job.request.id:
                break
            before += 1
        return before

    def _before(self, group: Group) -> Iterator[Group]:
        for other in self.queues[group.worker].groups if group.worker else ():
            if other is group:
                return
            yield other

    def check(self) -> None:
        placed = [group for queue in self.queues.values() for group in queue.groups]
        assert len(placed) + len(self.nowhere) == len(self.groups)
        assert {group.id for group in placed} | self.nowhere.keys() == self.groups.keys()
        for worker, queue in self.queues.items():
            assert all(group.worker == worker for group in queue.groups)
        members = 0
        for group in self.groups.values():
            assert group.jobs, f"group {group.id} is empty"
            assert group.work.count >= len(group.jobs) - 1e-6, f"group {group.id} counts {group.work.count}"
            assert self.kinds[group.kind.key] is group.kind
            assert all(job.group is group and job.ticket for job in group.jobs.values())
            members += len(group.jobs)
        assert members == self._size == sum(len(jobs) for kind in self.kinds.values() for jobs in kind.flows.values())
