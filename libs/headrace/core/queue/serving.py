"""Serving the virtual queues: a worker with room pulls the head of its own, and helps others when that is empty.

Strictly in order within a virtual queue: a head that does not fit waits, or has less urgent requests evicted for it.
"""

from collections.abc import Iterator

from headrace.core.queue.cell import Cell
from headrace.core.queue.groups import Group
from headrace.core.queue.job import Job
from headrace.core.queue.launching import Pair, charge, decode_for, launch, prefill_load, refuse_if_too_large
from headrace.core.queue.operations import go_on
from headrace.core.queue.planning import place_groups
from headrace.core.queue.preempting import go_on_if_room
from headrace.core.queue.room import make_room
from headrace.core.queue.sparing import is_spared
from headrace.core.queue.swapping import swap_for
from headrace.core.queue.virtual import VirtualQueue, VirtualQueues
from headrace.core.queue.waits import waited
from headrace.core.queue.worker import Worker


def serve(cell: Cell, virtual: VirtualQueues, now_s: float) -> None:
    place_groups(cell, virtual, now_s)
    for queue in virtual.queues.values():
        if queue.groups:
            _serve_queue(cell, virtual, queue, now_s)
    if cell.config.balance and len(virtual):
        _balance(cell, virtual, now_s)


def _serve_queue(cell: Cell, virtual: VirtualQueues, queue: VirtualQueue, now_s: float) -> None:
    worker = cell.workers[queue.worker]
    while queue.groups and not worker.loading and not worker.alone:
        group = virtual.head_of(queue, now_s)
        if group.model != worker.model:
            swap_for(cell, worker, queue, group, now_s)
            return
        if is_spared(cell, virtual, worker, group, now_s):
            return
        job = virtual.next_of(group, now_s)
        if not _start(cell, virtual, job, group, worker, now_s):
            make_room(cell, worker, job, group, now_s)
            return


def _start(cell: Cell, virtual: VirtualQueues, job: Job, group: Group, worker: Worker, now_s: float) -> bool:
    """Whether it needs no room any more: it runs, or never will."""
    if job.state == "evicted":
        if not worker.whole:
            return go_on_if_room(cell, cell.pool(worker.model), job, now_s)
        if not worker.fits(job.kv_tokens):
            return False
        go_on(cell, job, worker, now_s)
    else:
        pair = _pair(cell, worker, job)
        if pair is None:
            return refuse_if_too_large(cell, job, now_s)
        waited(cell, job, now_s)
        charge(cell, job, job.work.output_mean, now_s)
        launch(cell, job, pair, now_s)
    group.started = True
    return True


def _pair(cell: Cell, worker: Worker, job: Job) -> Pair | None:
    """The instance itself, or with the emptiest decode worker of its model."""
    if worker.whole or job.one_left:
        return (worker, worker) if worker.fits(job.kv_tokens) else None
    if not worker.fits(job.prefill_tokens):
        return None
    decode = decode_for(cell.pool(worker.model), job)
    return (worker, decode) if decode is not None else None


def _balance(cell: Cell, virtual: VirtualQueues, now_s: float) -> None:
    """Whoever has nothing of its own to do takes the most urgent of what waits elsewhere for the same model."""
    idle = [
        worker
        for queue in virtual.queues.values()
        if not queue.groups
        and (worker := cell.workers[queue.worker]).slots_used < worker.slots_usable
        and not worker.loading
        and not worker.alone
    ]
    for worker in sorted(idle, key=prefill_load):
        for group in _waiting_elsewhere(cell, virtual, worker):
            if is_spared(cell, virtual, worker, group, now_s):
                continue
            while group.id in virtual.groups and worker.slots_used < worker.slots_usable:
                job = virtual.next_of(group, now_s)
                if not _may_take(cell, job, worker) or not _start(cell, virtual, job, group, worker, now_s):
                    break
                cell.count("balance")


def _waiting_elsewhere(cell: Cell, virtual: VirtualQueues, worker: Worker) -> Iterator[Group]:
    """Of each virtual queue the first group for this model, the most urgent first."""
    found = [
        group
        for queue in virtual.queues.values()
        if (group := next((each for each in queue.groups if each.model == worker.model), None)) is not None
    ]
    return iter(sorted(found, key=lambda group: (group.due_s, group.id)))


def _may_take(cell: Cell, job: Job, worker: Worker) -> bool:
    return job.state != "evicted" or cell.config.move or job.prefill == worker.id
