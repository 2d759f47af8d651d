"""What gateways ask: cancel, attach, where is my stream; and deadlines, which ask by themselves."""

from headrace.core.commands import ResendCommand
from headrace.core.effects import LookInResults, Moved, SendCancel, SendResend
from headrace.core.events import Attach, Cancel, Stalled
from headrace.core.queue.admission import expire
from headrace.core.queue.cell import Alarm, Cell
from headrace.core.queue.ends import stopped
from headrace.core.queue.job import AT_WORKER, Job, Stop
from headrace.core.queue.recovery import recover_again, retry


def cancel(cell: Cell, event: Cancel, now_s: float) -> None:
    job = cell.jobs.get(event.request_id)
    if job is None or (event.gateway and job.gateway_known and event.gateway != job.gateway):
        return
    _stop(cell, job, "deadline" if event.deadline else "cancelled", now_s)


def _stop(cell: Cell, job: Job, why: Stop, now_s: float) -> None:
    """End it where nobody works on it; else tell the workers, whose end carries the tokens."""
    if job.state == "ending" or job.stop:
        return
    job.stop = why
    if job.state in ("encoding", "queued"):
        stopped(cell, job, why, now_s)
    elif job.state in AT_WORKER:
        cell.step_out(job)  # an evicted one stands in line no more: its end is on the way
        for worker_id in job.workers():
            cell.emit(SendCancel(worker_id, job.key))
        cell.alarm(now_s + cell.config.stop_wait_s, "stop", job)


def attach(cell: Cell, event: Attach, now_s: float) -> None:
    """The newest gateway to ask gets the stream."""
    job = cell.jobs.get(event.request_id)
    if job is None:
        _answer_unknown(cell, event.request_id, event.gateway)
        return
    if event.gateway != job.gateway:
        cell.emit(Moved(job.gateway, event.request_id))
        job.gateway = event.gateway
    job.gateway_known = True
    _resend(cell, job, event.gateway, event.next_index)


def stalled(cell: Cell, event: Stalled, now_s: float) -> None:
    job = cell.jobs.get(event.request_id)
    if job is None:
        _answer_unknown(cell, event.request_id, event.gateway)
        return
    if event.gateway != job.gateway and job.gateway_known:
        cell.emit(Moved(event.gateway, event.request_id))
        return
    # After a change of leadership only the gateways know who attached last; the loser was told and does not ask.
    job.gateway = event.gateway
    job.gateway_known = True
    _resend(cell, job, event.gateway, event.next_index)


def _resend(cell: Cell, job: Job, gateway: str, next_index: int) -> None:
    if job.state in AT_WORKER:
        for worker_id in job.workers():
            cell.emit(SendResend(worker_id, ResendCommand(job.key, next_index, gateway)))
    elif job.state == "ending" and gateway not in job.askers:
        job.askers.append(gateway)


def _answer_unknown(cell: Cell, request_id: str, gateway: str) -> None:
    """Before the journal has been read, unknown means nothing."""
    if cell.caught_up:
        cell.emit(LookInResults(gateway, request_id))


def ring(cell: Cell, alarm: Alarm, job: Job, attempt: int, now_s: float) -> None:
    """An alarm of this job is due."""
    if alarm == "ttl":
        expire(cell, job, now_s)
    elif alarm == "recover":
        recover_again(cell, job, attempt, now_s)
    elif alarm == "deadline" and job.state in AT_WORKER:
        # Workers keep deadlines themselves, and their end carries the tokens.
        cell.alarm(now_s + cell.config.deadline_grace_s, "grace", job)
    elif alarm in ("deadline", "grace"):
        _stop(cell, job, "deadline", now_s)
    elif job.state in AT_WORKER and job.attempt == attempt and job.stop:
        retry(cell, [job], now_s)  # the workers do not answer: what was emitted, or even ended, is looked up
