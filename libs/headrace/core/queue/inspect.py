"""The virtual queues as people and other programs see them: groups in order, who waits how long, what was done."""

from dataclasses import dataclass

from headrace.core.governing import FULL, Speeds
from headrace.core.queue.cell import Cell
from headrace.core.queue.groups import Group, size_words
from headrace.core.queue.running import instance_of
from headrace.core.queue.virtual import VirtualQueue, VirtualQueues
from headrace.core.queue.waits import Onlooker, change_s, passing
from headrace.core.waiting.errors import WaitErrorRow
from headrace.core.waiting.estimate import Wait
from headrace.core.waiting.work import NOTHING

FLOWS_MAX = 100  # of each class, those that were served most


@dataclass(frozen=True, slots=True)
class GroupView:
    id: int
    model: str
    slo_class: str
    size: str
    priority: int
    waiting: int
    evicted: int
    due_in_s: float
    estimated_wait_s: float  # of its first; negative: no estimate
    estimated_wait_bound_s: float
    output_tokens: float


@dataclass(frozen=True, slots=True)
class VirtualQueueView:
    worker: str
    model: str
    loading: str
    running: int
    slots: int
    tokens_per_s: float  # negative: not known
    groups: tuple[GroupView, ...]
    speeds: Speeds = FULL  # that the governor says
    weight: float = 1.0
    slots_usable: int = 0  # that it leaves
    groups_left_out: int = 0
    waiting_left_out: int = 0  # in those


@dataclass(frozen=True, slots=True)
class FlowView:
    slo_class: str
    flow: str
    waiting: int
    served_tokens: float


@dataclass(frozen=True, slots=True)
class PlannerView:
    plans_solved: int
    plans_applied: int
    plans_stale: int
    last_solve_s: float
    last_cost: float
    last_solver: str
    last_optimal: bool
    solve_s: float  # of all plans that were solved: from each question to its answer


@dataclass(frozen=True, slots=True)
class Inspection:
    policy: str
    queues: tuple[VirtualQueueView, ...]
    unplaced: tuple[GroupView, ...]
    operations: dict[str, int]
    flows: tuple[FlowView, ...]
    wait_errors: tuple[WaitErrorRow, ...]
    planner: PlannerView


def inspect(cell: Cell, now_s: float, groups_max: int) -> Inspection:
    virtual, planning = cell.virtual, cell.planning
    return Inspection(
        policy=cell.config.planner or cell.config.order,
        queues=_queues(cell, virtual, now_s, groups_max) if virtual is not None else (),
        unplaced=tuple([_group(each, now_s) for each in virtual.nowhere.values()][:groups_max])
        if virtual is not None
        else (),
        operations=dict(cell.operations),
        flows=_flows(virtual, now_s) if virtual is not None else (),
        wait_errors=cell.waits.rows(),
        planner=PlannerView(
            planning.solved,
            planning.applied,
            planning.stale,
            planning.last_solve_s,
            planning.last_cost,
            planning.last_solver,
            planning.last_optimal,
            planning.solve_s,
        ),
    )


def _queues(cell: Cell, virtual: VirtualQueues, now_s: float, groups_max: int) -> tuple[VirtualQueueView, ...]:
    streams = passing(cell, now_s)
    found = []
    for worker_id in sorted(virtual.queues):
        onlooker = Onlooker(cell, cell.workers[worker_id], streams, now_s)
        found.append(_queue(cell, virtual.queues[worker_id], onlooker, now_s, groups_max))
    return tuple(found)


def _queue(cell: Cell, queue: VirtualQueue, onlooker: Onlooker, now_s: float, groups_max: int) -> VirtualQueueView:
    worker = cell.workers[queue.worker]
    instance = instance_of(cell, worker)
    rate = instance.tokens_per_s if instance.step_s > 0 else -1.0
    groups = _groups(cell, queue, onlooker, now_s, groups_max)
    return VirtualQueueView(
        worker.id,
        worker.model,
        worker.loading,
        worker.slots_used,
        worker.slots,
        rate,
        groups,
        worker.governance.speeds,
        worker.governance.weight,
        worker.slots_usable,
        max(0, len(queue.groups) - groups_max),
        sum([len(group.jobs) for group in queue.groups[groups_max:]]),
    )


def _groups(
    cell: Cell, queue: VirtualQueue, onlooker: Onlooker, now_s: float, groups_max: int
) -> tuple[GroupView, ...]:
    worker = cell.workers[queue.worker]
    ahead, before, model, load_s, shown = NOTHING, 0, worker.model_to_be, 0.0, []
    for group in queue.groups[:groups_max]:
        load_s += change_s(worker, model, group.model)
        model = group.model
        prompt_tokens = group.work.prompt_tokens / max(1.0, group.work.count)
        wait = onlooker.wait(ahead, prompt_tokens, group.due_s)
        wait = Wait(wait.mean_s + load_s, wait.var_s2)
        shown.append(_group(group, now_s, wait.mean_s, cell.bounds.of(wait, before)))
        ahead += group.work
        before += len(group.jobs)
    return tuple(shown)


def _group(group: Group, now_s: float, wait_s: float = -1.0, bound_s: float = -1.0) -> GroupView:
    key = group.kind.key
    return GroupView(
        id=group.id,
        model=key.model,
        slo_class=key.slo_class,
        size=size_words(key),
        priority=key.priority,
        waiting=len(group.jobs),
        evicted=len(group.jobs) if group.begun else 0,
        due_in_s=group.due_s - now_s,
        estimated_wait_s=wait_s,
        estimated_wait_bound_s=bound_s,
        output_tokens=group.work.output_mean,
    )


def _flows(virtual: VirtualQueues, now_s: float) -> tuple[FlowView, ...]:
    waiting: dict[tuple[str, str], int] = {}
    for key, kind in virtual.kinds.items():
        for flow, jobs in kind.flows.items():
            place = (key.slo_class, flow)
            waiting[place] = waiting.get(place, 0) + len(jobs)
    shown = []
    for slo_class, shares in virtual.shares.items():
        counters = shares.all(now_s)
        served = {name: tokens for name, tokens in counters.items() if not name.endswith(" ")}  # of tenants and flows
        most = sorted(served, key=lambda flow: -served[flow])[:FLOWS_MAX]
        shown += [FlowView(slo_class, flow, waiting.get((slo_class, flow), 0), served[flow]) for flow in most]
    return tuple(shown)
