"""Preemption in a plain line, for orders that want it: a running request with much to do makes room for a short one."""

from headrace.core.ordering import ORDERS
from headrace.core.ordering.srpt import Begun, Preemption, Srpt
from headrace.core.queue.cell import Cell
from headrace.core.queue.job import Job
from headrace.core.queue.operations import evict, go_on
from headrace.core.queue.pool import Pool
from headrace.core.queue.room import fits_host, may_evict
from headrace.core.queue.worker import Worker

_RULE = Preemption()


def preempt_for(cell: Cell, pool: Pool, job: Job, now_s: float) -> None:
    """The head of the line does not fit: one running request is asked to make room, if the order gains by it."""
    if not cell.config.evict or not isinstance(ORDERS[cell.config.order], Srpt) or job.state == "evicted":
        return
    if any(worker.evicting for worker in pool.decodes):
        return  # room is being made already
    running = [
        (worker, seat.job)
        for worker in pool.decodes
        for seat in worker.seats.values()
        if may_evict(cell, seat.job, now_s) and fits_host(worker, seat.job)
    ]
    begun = [Begun(cell.left(each)[0], each.progress, each.evictions) for _, each in running]
    chosen = _RULE.victim(begun, cell.left(job)[0])
    if chosen is not None:
        evict(cell, running[chosen][1], now_s)


def go_on_if_room(cell: Cell, pool: Pool, job: Job, now_s: float) -> bool:
    """An evicted request is the first in line: where its KV cache lies, or else where there is room."""
    owner = cell.workers[job.prefill]
    able = [owner, *(pool.decodes if cell.config.move else ())]
    worker = next((each for each in able if _has_room(each, job)), None)
    if worker is None:
        return False
    go_on(cell, job, worker, now_s)
    return True


def _has_room(worker: Worker, job: Job) -> bool:
    if worker.loading or worker.alone or worker.model != job.request.model:
        return False
    return worker.decodes and worker.fits(job.kv_tokens)
