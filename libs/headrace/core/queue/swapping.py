"""Model swaps: a worker whose virtual queue asks for another model gives up its own once nothing runs there."""

from headrace.core.queue.cell import Cell
from headrace.core.queue.groups import Group
from headrace.core.queue.operations import evict, load
from headrace.core.queue.room import fits_host, may_evict
from headrace.core.queue.running import instance_of
from headrace.core.queue.virtual import VirtualQueue
from headrace.core.queue.worker import Worker


def swap_for(cell: Cell, worker: Worker, queue: VirtualQueue, group: Group, now_s: float) -> None:
    """The head of the queue wants another model than the worker has. It is sent nothing more of its own."""
    if not cell.config.swap or not worker.can_serve(group.model):
        return
    if not worker.slots_used and not worker.media_pending:
        load(cell, worker, group.model, now_s)
    elif cell.config.evict and worker.slots_used > len(worker.evicting):
        _evict_all(cell, worker, queue, group, now_s)


def _evict_all(cell: Cell, worker: Worker, queue: VirtualQueue, group: Group, now_s: float) -> None:
    """Rather than wait until the last has ended: if the head would be late, or the model comes back anyway."""
    running = [seat.job for seat in worker.seats.values() if seat.slots]
    left = {job.request.id: cell.left(job) for job in running}
    longest = max(mean + variance**0.5 for mean, variance in left.values())
    ended_s = now_s + longest * instance_of(cell, worker).step_s
    comes_back = any(other.model == worker.model for other in queue.groups)
    if ended_s + worker.loadable[group.model].load_s <= group.due_s and not comes_back:
        return
    for job in running:
        worth = left[job.request.id][0] >= cell.config.evict_tokens_min
        if worth and may_evict(cell, job, now_s) and fits_host(worker, job):
            evict(cell, job, now_s)
