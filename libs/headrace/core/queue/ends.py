"""How a job ends: exactly once, stored before anything of it is forgotten."""

from dataclasses import replace

from headrace.core.effects import (
    DeleteRecord,
    DropState,
    GatewayEnded,
    LookInResults,
    SendCancel,
    SendRelease,
    StoreResult,
)
from headrace.core.errors import Cancelled, DeadlineExceeded, HeadraceError
from headrace.core.events import Ended, ResultStored
from headrace.core.queue.alone import end_alone
from headrace.core.queue.cell import Cell
from headrace.core.queue.encoding import leave_lane, release_parts
from headrace.core.queue.job import AT_WORKER, Job, Stop
from headrace.core.queue.lengths import learn
from headrace.core.queue.spans import add_span
from headrace.core.types import End, Failure, FinishReason, Logprobs
from headrace.core.usage import usage_of


def worker_ended(cell: Cell, event: Ended, now_s: float) -> None:
    """The gateway has the end already; workers say it again until they are released."""
    job = cell.jobs.get(event.key.request_id)
    if job is None:
        if cell.caught_up:
            cell.emit(SendRelease(event.worker, event.key))
        return
    if job.state == "accepted" and not job.attempt:
        job.attempt = event.key.attempt  # of an earlier leadership
        job.decode = event.worker
    elif event.key.attempt != job.attempt or job.state not in AT_WORKER:
        if event.key.attempt < job.attempt:
            cell.emit(SendRelease(event.worker, event.key))
        return
    end = event.end
    if job.stop == "deadline" and end.reason == "cancelled":
        end = replace(end, reason="deadline", failure=_stop_failure("deadline"))
    finish(cell, job, end, event.tokens, event.logprobs, now_s)


def finish(cell: Cell, job: Job, end: End, tokens: tuple[int, ...], logprobs: Logprobs, now_s: float) -> None:
    """Free the books, store the result. Whoever keeps tokens keeps them until it is stored."""
    for worker_id in job.workers():
        worker = cell.workers.get(worker_id)
        if worker is not None and job.request.id in worker.seats:
            worker.unseat(job)
    leave_lane(cell, job)
    release_parts(cell, job)
    end_alone(cell, job)
    cell.move(job, "ending")
    job.end = end
    learn(cell, job, end, len(tokens), now_s)
    cell.dirty = True
    cell.emit(StoreResult(job.request, job.attempt, tokens, end, now_s, logprobs))


def decide(cell: Cell, job: Job, reason: FinishReason, failure: Failure | None, now_s: float) -> None:
    """An end that no worker announces: the queue manager tells the gateway, and stops whoever still works on it.

    Cancelled and released at once, a worker tells nobody of an end.
    """
    request = job.request
    for worker_id in job.workers():
        cell.emit(SendCancel(worker_id, job.key))
        cell.emit(SendRelease(worker_id, job.key))
    prefix_tokens = cell.config.prefix_tokens.get(request.prompt.prefix, 0)
    if job.state in ("queued", "encoding"):
        add_span(cell, job, "queue" if job.state == "queued" else "media", job.ready_s, now_s)
    usage = usage_of(request.prompt, prefix_tokens, len(job.emitted), timeline=job.timeline)
    end = End(reason, failure, usage, job.timeline)
    cell.emit(GatewayEnded(job.gateway, job.key, end))
    finish(cell, job, end, job.emitted, job.logprobs, now_s)


def fail(cell: Cell, job: Job, error: HeadraceError, now_s: float) -> None:
    decide(cell, job, "error", error.failure(), now_s)


def stopped(cell: Cell, job: Job, why: Stop, now_s: float) -> None:
    """Cancelled or past its deadline."""
    assert why, f"{job.key} was not stopped"
    decide(cell, job, why, _stop_failure(why), now_s)


def _stop_failure(why: Stop) -> Failure:
    if why == "deadline":
        return DeadlineExceeded("the request's time was over before it was complete").failure()
    return Cancelled("the request was cancelled").failure()


def result_stored(cell: Cell, event: ResultStored, now_s: float) -> None:
    job = cell.jobs.get(event.request_id)
    if job is None or job.state != "ending":
        return
    assert job.end is not None, f"{job.key} is ending without an end"
    reason = job.end.reason
    cell.ended_by_reason[reason] = cell.ended_by_reason.get(reason, 0) + 1
    forget(cell, job, now_s)


def forget(cell: Cell, job: Job, now_s: float) -> None:
    """RESULTS has the end: nobody needs to keep anything."""
    request = job.request
    for worker_id in job.workers():
        if worker_id in cell.workers:
            cell.emit(SendRelease(worker_id, job.key))
    job.prefill = job.decode = ""
    release_parts(cell, job)
    for gateway in job.askers:
        cell.emit(LookInResults(gateway, request.id))
    cell.emit(DeleteRecord(request.id, job.seq))
    cell.emit(DropState(request.id, bool(request.media)))
    cell.move(job, "ended")
    cell.ended[request.id] = now_s
    cell.ended.move_to_end(request.id)
    if len(cell.ended) > cell.config.ended_max:
        cell.ended.popitem(last=False)


def ended_before(cell: Cell, job: Job, now_s: float) -> None:
    """An earlier leadership stored its end and died before it could forget the request."""
    for worker_id in job.workers():
        worker = cell.workers.get(worker_id)
        if worker is not None and job.request.id in worker.seats:
            worker.unseat(job)
    leave_lane(cell, job)
    cell.move(job, "ending")
    cell.accepted -= 1
    forget(cell, job, now_s)
