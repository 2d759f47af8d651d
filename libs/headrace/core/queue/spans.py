"""The queue manager's own intervals of a request's life: no time of a request belongs to nobody.

media: until the encoders have returned every part. queue: ready, waiting for workers. recover: from the dispatch of
an attempt that was lost until what it emitted is known.
"""

from headrace.core.effects import Traced
from headrace.core.queue.cell import Cell
from headrace.core.queue.job import Job
from headrace.core.types import PART_STAGES, StageSpan


def add_span(cell: Cell, job: Job, stage: str, start_s: float, now_s: float) -> None:
    span = StageSpan(stage, start_s, now_s, cell.config.name)
    job.timeline += (span,)
    if job.request.traceparent:
        cell.emit(Traced(job.key, job.request.traceparent, span))


def dispatched_s(job: Job) -> float:
    """When the current attempt was sent to its workers: where the last span of ours ended. Encoders' may come later."""
    own = (span.end_s for span in reversed(job.timeline) if span.stage not in PART_STAGES)
    return next(own, job.request.accepted_s)


def told(job: Job, timeline: tuple[StageSpan, ...]) -> None:
    """What an attempt has been through, as its worker says, maybe twice: paid for, also if the attempt is lost."""
    job.timeline += tuple([span for span in timeline if span not in job.timeline])
