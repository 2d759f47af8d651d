"""Giving back what cannot be served in time: at once if that is plain, and whatever has waited too long."""

from headrace.core.errors import Expired, TooLate
from headrace.core.queue.cell import Cell
from headrace.core.queue.ends import fail
from headrace.core.queue.job import Job
from headrace.core.waiting.estimate import Wait

RETRY_S_LEAST, RETRY_S_MOST = 1.0, 600.0
# Standard deviations below the expected wait: even if all goes this well it is too late.
AT_LEAST = -2.33


def reject_if_hopeless(cell: Cell, job: Job, wait: Wait, now_s: float) -> None:
    """Its deadline will have passed before its first token: better said now than then."""
    if not cell.config.early_rejection or job.emitted or job.tries > 1:
        return
    least_s = wait.bound(AT_LEAST)
    if now_s + least_s <= job.request.deadline_s:
        return
    cell.count("reject")
    message = f"it would wait {least_s:.0f} s at least, and its deadline is in {job.request.deadline_s - now_s:.0f} s"
    fail(cell, job, TooLate(message, retry_after_s=retry_after_s(wait.mean_s)), now_s)


def expire(cell: Cell, job: Job, now_s: float) -> None:
    """It has waited as long as its class may, and nothing of it has been seen: somebody else may have room."""
    if not (job.state in ("encoding", "queued") or job.filling) or job.emitted or job.progress or job.stop:
        return
    cell.count("expire")
    waited_s = now_s - job.request.accepted_s
    message = f"it waited {waited_s:.0f} s for its first token, the most that class {job.request.slo_class} allows"
    fail(cell, job, Expired(message, retry_after_s=RETRY_S_LEAST), now_s)


def retry_after_s(wait_s: float) -> float:
    return min(max(wait_s, RETRY_S_LEAST), RETRY_S_MOST)
