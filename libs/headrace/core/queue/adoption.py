"""A new leadership: read the journal, let workers say what they hold, take that over, and only then dispatch."""

from headrace.core.commands import Hold, HoldState
from headrace.core.effects import DeleteRecord, FindResults, PredictLength, SendCancel, SendRelease
from headrace.core.errors import Overloaded
from headrace.core.events import CaughtUp, RequestAccepted, ResultsFound
from headrace.core.queue.cell import Cell
from headrace.core.queue.encoding import make_ready
from headrace.core.queue.ends import ended_before, fail
from headrace.core.queue.job import AT_WORKER, Job, Part, State
from headrace.core.queue.operations import keep_evicted
from headrace.core.queue.overlap import feed
from headrace.core.queue.recovery import retry
from headrace.core.queue.stages import patience_s
from headrace.core.queue.worker import Worker
from headrace.core.stages.kv import kv_tokens


def accept(cell: Cell, event: RequestAccepted, now_s: float) -> None:
    request = event.request
    known = cell.jobs.get(request.id)
    if known is not None:
        if known.seq != event.seq:  # the same request, journaled again after the dedupe window
            cell.emit(DeleteRecord(request.id, event.seq))
        return
    if now_s - cell.ended.get(request.id, float("-inf")) < cell.config.results_age_s:
        cell.emit(DeleteRecord(request.id, event.seq))  # whoever waits for it finds the result
        return
    job = Job(request, event.seq, kv_tokens(request, cell.config.prefix_tokens.get(request.prompt.prefix, 0)))
    cell.accepted += 1
    full = cell.caught_up and cell.waiting_in(request.slo_class) >= _limit(cell, job)
    cell.enter(job)
    cell.alarm(request.deadline_s, "deadline", job)
    slo = cell.config.classes.get(request.slo_class)
    if slo is not None and slo.ttl_s:
        cell.alarm(request.accepted_s + slo.ttl_s, "ttl", job)
    if cell.config.predict_lengths and not full:
        cell.emit(PredictLength(request))
    if full:
        error = Overloaded(f"the queue of class {request.slo_class} is full", retry_after_s=1.0)
        fail(cell, job, error, now_s)
    elif cell.caught_up:
        if cell.virtual is not None:
            cell.note_arrival(job, now_s)
        make_ready(cell, job, now_s)
    else:
        job.gateway_known = False


def _limit(cell: Cell, job: Job) -> int:
    slo = cell.config.classes.get(job.request.slo_class)
    return slo.queue_limit if slo is not None else 0


def caught_up(cell: Cell, event: CaughtUp, now_s: float) -> None:
    if cell.caught_up:
        return
    cell.caught_up = True
    cell.dirty = True
    replayed = tuple(job.request.id for job in cell.jobs.values() if job.state == "accepted")
    if replayed:
        cell.adopting_until_s = now_s + cell.config.adopt_s
        cell.results_asked = len(replayed)
        cell.emit(FindResults(replayed))


def results_found(cell: Cell, event: ResultsFound, now_s: float) -> None:
    cell.results_asked -= event.asked
    for request_id in event.ended:
        job = cell.jobs.get(request_id)
        if job is not None and job.state != "ending":
            ended_before(cell, job, now_s)


def end_adoption(cell: Cell, now_s: float) -> None:
    """Who is held by nobody may have been running all the same: what it emitted is looked up first."""
    if cell.adopting_until_s is None or now_s < cell.adopting_until_s or cell.results_asked > 0:
        return
    cell.adopting_until_s = None
    cell.dirty = True
    retry(cell, [job for job in cell.jobs.values() if job.state == "accepted" or job.bereft], now_s)


# A worker that ended it says so again until it is released: it is as good as decoding.
_ADOPTED_STATE: dict[HoldState, State] = {
    "prefill": "prefill",
    "handover": "handover",
    "decode": "decode",
    "ended": "decode",
}


def adopt(cell: Cell, worker: Worker, job: Job, hold: Hold, now_s: float) -> bool:
    """Take over a job where an earlier leadership put it; the newest attempt wins."""
    if cell.adopting_until_s is None or job.state not in ("accepted", *AT_WORKER) or hold.key.attempt <= job.attempt:
        return False
    if job.state in AT_WORKER:
        _give_up(cell, job)
    job.prefill = job.decode = ""
    job.attempt = hold.key.attempt
    job.progress = hold.next_index
    job.sent_s = job.fed_s = now_s
    job.told = max(0, len(job.parts) - hold.lacks)
    job.patience_s = patience_s(cell, hold.handle.size_bytes if hold.handle is not None else 0)
    if hold.state in ("prefill", "handover"):
        job.prefill, job.decode = worker.id, hold.decode_worker or worker.id
    elif hold.state == "evicted":
        _adopt_evicted(cell, worker, job, hold, now_s)
        return True
    else:
        job.prefill, job.decode = "", worker.id
    cell.move(job, _ADOPTED_STATE[hold.state])
    for worker_id in job.workers():
        _known_worker(cell, worker_id, now_s).seat(job, _kv_tokens(job, worker_id, hold), adopted=True)
    if job.filling:
        cell.filling[job.request.id] = job
        feed(cell, job, now_s)
    _stop_there(cell, job, now_s)
    return True


def _stop_there(cell: Cell, job: Job, now_s: float) -> None:
    """It was to stop before its workers were known."""
    if job.stop:
        for worker_id in job.workers():
            cell.emit(SendCancel(worker_id, job.key))
        cell.alarm(now_s + cell.config.stop_wait_s, "stop", job)


def _adopt_evicted(cell: Cell, worker: Worker, job: Job, hold: Hold, now_s: float) -> None:
    """It stands in line to go on, as it did under the leadership before."""
    worker.seat(job, 0, adopted=True)
    keep_evicted(cell, worker, job, hold.handle.size_bytes if hold.handle is not None else 0, now_s)
    _stop_there(cell, job, now_s)


def _kv_tokens(job: Job, worker_id: str, hold: Hold) -> int:
    """What it still takes there."""
    if hold.state == "ended" or (hold.state == "handover" and worker_id == job.prefill):
        return 0
    return job.kv_tokens if worker_id == job.decode else job.prefill_tokens


def _give_up(cell: Cell, job: Job) -> None:
    """An older attempt was adopted first: back to where it stood."""
    for worker_id in job.workers():
        worker = cell.workers[worker_id]
        worker.unseat(job)
        cell.emit(SendCancel(worker_id, job.key))
        cell.emit(SendRelease(worker_id, job.key))
    cell.move(job, "accepted")


def _known_worker(cell: Cell, worker_id: str, now_s: float) -> Worker:
    """A worker that a hold names may not have been heard of yet; it gets as long as any to speak up."""
    worker = cell.workers.get(worker_id)
    if worker is None:
        worker = cell.workers[worker_id] = Worker(worker_id, now_s)
        worker.lease_until_s = now_s + cell.config.lease_s
    return worker


def adopt_part(cell: Cell, worker: Worker, job: Job, part: Part, hold: Hold, now_s: float) -> bool:
    """Of one that runs too, while its prefill may still want parts: to let go of one is to let go of all."""
    if part.worker or job.state not in ("accepted", "prefill"):
        return False
    part.attempt = hold.key.attempt
    part.handle = hold.handle if hold.state == "encoded" else None
    part.sent_s = now_s
    worker.place(job, part)
    if job.filling:
        feed(cell, job, now_s)
    return True
