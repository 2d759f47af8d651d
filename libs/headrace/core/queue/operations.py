"""Operations on running requests and on workers: evict, resume, move, load (QLM, arXiv 2407.00047, "LLM Service
Operations"). When they are worth it serving.py and planning.py decide; here is what they change in the books.
"""

from headrace.core.commands import MoveCommand
from headrace.core.effects import SendEvict, SendLoad, SendMove, SendResume
from headrace.core.events import Evicted, Joined
from headrace.core.instance import Loadable
from headrace.core.queue.cell import Cell
from headrace.core.queue.job import Job
from headrace.core.queue.recovery import retry
from headrace.core.queue.spans import told
from headrace.core.queue.stages import joined, patience_s
from headrace.core.queue.worker import Worker

# An evicted request goes on within so many of its class's targets, and early enough to end in time.
RESUME_TARGETS = 2.0


def evict(cell: Cell, job: Job, now_s: float) -> None:
    """Ask for it; the worker may decline by going on."""
    worker = cell.workers[job.decode]
    assert job.state == "decode"
    job.evict_sent_s = now_s
    worker.evicting[job.request.id] = job
    cell.count("evict_asked")
    cell.emit(SendEvict(worker.id, job.key))


def evicted(cell: Cell, event: Evicted, now_s: float) -> None:
    job = cell.current(event.key)
    if job is None:
        return
    told(job, event.timeline)  # also if a heartbeat that overtook it has told the rest
    if job.decode != event.worker:
        return
    if job.state == "prefill" or (job.state == "handover" and job.prefill != job.decode):
        joined(cell, Joined(event.worker, event.key), now_s)  # it has decoded there, and nobody has told so yet
    if job.state != "decode":
        return
    worker = cell.workers[event.worker]
    job.progress = max(job.progress, event.next_index)
    job.evict_sent_s = 0.0
    job.evictions += 1
    keep_evicted(cell, worker, job, event.kv.size_bytes, now_s)
    cell.count("evict")


def keep_evicted(cell: Cell, worker: Worker, job: Job, size_bytes: int, now_s: float) -> None:
    """Its seat is a KV cache in host memory now, and it stands in line to go on."""
    if job.prefill not in ("", worker.id) and job.prefill in cell.workers:
        cell.workers[job.prefill].unseat(job)
    job.prefill, job.decode = worker.id, ""
    job.evicted_bytes = size_bytes
    worker.lighten(job, size_bytes)
    job.sent_s = job.ready_s = now_s
    job.due_s = _due_s(cell, job, now_s)
    cell.move(job, "evicted")
    if job.stop:
        cell.step_out(job)  # its end is on the way


def _due_s(cell: Cell, job: Job, now_s: float) -> float:
    target_s = cell.effective_target_s(job.request)
    return min(now_s + RESUME_TARGETS * target_s, max(now_s, job.request.deadline_s - target_s))


def eviction_declined(cell: Cell, worker: Worker, job: Job, now_s: float) -> None:
    """It goes on decoding: the worker could not, or the command was lost. It is not asked again soon."""
    worker.evicting.pop(job.request.id, None)
    job.evict_sent_s = 0.0
    job.dispatched_s = now_s
    cell.count("evict_declined")
    cell.dirty = True


def go_on(cell: Cell, job: Job, worker: Worker, now_s: float) -> None:
    """An evicted request goes on at a worker that has room: the one that keeps its KV cache, or another."""
    if worker.id in job.left:
        retry(cell, [job], now_s)  # it has been there: only another attempt can come back
        return
    owner = cell.workers[job.prefill]
    cell.move(job, "handover")
    if worker is owner:
        owner.unseat(job)
    worker.seat(job, job.kv_tokens)
    job.decode = worker.id
    job.resends = 0
    job.dispatched_s = now_s
    job.patience_s = patience_s(cell, job.evicted_bytes)
    cell.count("resume" if worker is owner else "move")
    send_on(cell, job, now_s)


def send_on(cell: Cell, job: Job, now_s: float) -> None:
    """Also again: a worker that is at it ignores the command."""
    job.sent_s = now_s
    if job.decode == job.prefill:
        cell.emit(SendResume(job.decode, job.key))
    else:
        cell.emit(SendMove(job.prefill, MoveCommand(job.key, job.decode)))


def load(cell: Cell, worker: Worker, model: str, now_s: float) -> None:
    """Nothing runs there: from now on it serves another model."""
    assert not worker.slots_used, f"{worker.id} still runs {worker.slots_used} requests"
    worker.loading = model
    cell.count("load_warm" if worker.loadable[model].warm else "load_cold")
    keep_loadable(worker)
    cell.rebuild_pools()
    send_load(cell, worker, now_s)


def keep_loadable(worker: Worker) -> None:
    """The model that it gives up may be loaded again behind this one: its requests go on waiting there, and new ones
    are let in. What that takes the worker says once it has loaded this one; until then, as long."""
    wanted = worker.loadable.get(worker.loading)
    if wanted is not None and worker.model not in worker.loadable:
        worker.loadable[worker.model] = Loadable(
            worker.model, wanted.load_s, True, worker.slots, worker.blocks, worker.block_tokens, worker.pace.pace
        )


def send_load(cell: Cell, worker: Worker, now_s: float) -> None:
    worker.load_sent_s = now_s
    cell.emit(SendLoad(worker.id, worker.loading))
