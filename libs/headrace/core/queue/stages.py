"""What workers report of a job: parts encoded, prefilled, joined, failed. Heartbeats say the same things again."""

from headrace.core.effects import SendRelease
from headrace.core.errors import StageError
from headrace.core.events import Joined, PartEncoded, Prefilled, StageFailed
from headrace.core.queue.alone import exonerate
from headrace.core.queue.cell import Cell
from headrace.core.queue.encoding import lose_part, make_ready, release_parts
from headrace.core.queue.ends import decide, fail
from headrace.core.queue.job import AT_WORKER, Job
from headrace.core.queue.overlap import part_came
from headrace.core.queue.recovery import retry
from headrace.core.queue.spans import told


def part_encoded(cell: Cell, event: PartEncoded, now_s: float) -> None:
    job = cell.jobs.get(event.key.request_id)
    if job is None or event.part >= len(job.parts):
        return
    part = job.parts[event.part]
    if (part.worker, part.attempt) != (event.worker, event.key.attempt) or part.handle is not None:
        return
    part.handle = event.embedding
    part.sent_s = now_s
    cell.workers[event.worker].encoded(part)
    job.timeline += event.timeline
    cell.dirty = True
    if job.state == "encoding" and job.encoded:
        if job.died_at == "encode":
            exonerate(cell, job)
        make_ready(cell, job, now_s)
    else:
        part_came(cell, job, now_s)


def prefilled(cell: Cell, event: Prefilled, now_s: float) -> None:
    job = cell.current(event.key)
    if job is None:
        return
    told(job, event.timeline)  # also if decoding has begun: a decode worker's word may overtake a prefill worker's
    if job.state != "prefill" or event.worker != job.prefill or job.decode == job.prefill:
        return
    cell.move(job, "handover")
    cell.workers[event.worker].lighten(job)
    cell.dirty = True
    job.progress = max(job.progress, event.next_index)
    job.sent_s = now_s
    job.patience_s = patience_s(cell, event.kv.size_bytes if event.kv is not None else 0)


def patience_s(cell: Cell, size_bytes: int) -> float:
    """How long a KV cache may be on its way before it counts as lost."""
    return cell.config.handover_s + size_bytes / cell.config.handover_bytes_per_s


def joined(cell: Cell, event: Joined, now_s: float) -> None:
    """Decoding has begun: the prefill worker's seat and the embeddings are free."""
    job = cell.current(event.key)
    if job is None or event.worker != job.decode or job.state not in ("prefill", "handover"):
        return
    cell.move(job, "decode")
    job.sent_s = now_s
    job.resends = 0
    if job.prefill != job.decode:
        leave_prefill(cell, job)
    release_parts(cell, job)
    cell.dirty = True


def leave_prefill(cell: Cell, job: Job) -> None:
    """Give up the seat at the prefill worker; a dead one has none."""
    worker = cell.workers.get(job.prefill)
    job.prefill = ""
    if worker is None:
        return
    worker.unseat(job)
    job.left += (worker.id,)
    if worker.alone == job.request.id:
        worker.alone = ""
    cell.emit(SendRelease(worker.id, job.key))


def stage_failed(cell: Cell, event: StageFailed, now_s: float) -> None:
    job = cell.jobs.get(event.key.request_id)
    if job is None or not _concerns(job, event):
        return
    told(job, event.timeline)
    if not event.retryable:
        decide(cell, job, "error", event.failure, now_s)
        return
    job.stage_failures += 1
    if job.stage_failures >= cell.config.stage_failures_max:
        fail(cell, job, StageError(f"failed {job.stage_failures} times, last: {event.failure.message}"), now_s)
    elif job.state == "encoding":
        _encode_again(cell, job, event, now_s)
    elif job.filling and event.worker not in job.workers():
        _encode_again(cell, job, event, now_s)
        retry(cell, [job], now_s)
    else:
        release_parts(cell, job)  # a handle may be what failed: encode again
        retry(cell, [job], now_s)


def _concerns(job: Job, event: StageFailed) -> bool:
    at = event.worker, event.key.attempt
    if (job.state == "encoding" or job.filling) and any((part.worker, part.attempt) == at for part in job.parts):
        return True
    return job.state in AT_WORKER and event.key.attempt == job.attempt


def _encode_again(cell: Cell, job: Job, event: StageFailed, now_s: float) -> None:
    failed_at = (event.worker, event.key.attempt)
    cell.emit(SendRelease(event.worker, event.key))
    for part in job.parts:
        if (part.worker, part.attempt) == failed_at:
            lose_part(cell, job, part, now_s)
