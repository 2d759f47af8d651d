"""Suspects: a job that two workers in a row died with runs alone until it has proved harmless.

Only deaths alone condemn: whoever was with the guilty one is never set aside.
"""

from headrace.core.queue.cell import Cell
from headrace.core.queue.job import Job
from headrace.core.queue.worker import Worker


def claim_one(cell: Cell, workers: list[Worker], job: Job) -> Worker | None:
    """Set a worker aside for the first suspect in line; at most half of them, so that the others are served on.

    What was set aside for somebody who stands behind it now, and does not run yet, is taken over.
    """
    waiting = [worker for worker in workers if worker.alone and not _runs_alone(cell, worker)]
    free = [worker for worker in workers if not worker.alone]
    if not waiting and len(workers) - len(free) >= max(1, len(workers) // 2):
        return None
    claimed = min(
        waiting or free, key=lambda worker: (worker.media_pending, len(worker.seats), worker.id), default=None
    )
    if claimed is not None:
        claimed.alone = job.request.id
    return claimed


def _runs_alone(cell: Cell, worker: Worker) -> bool:
    holder = cell.jobs.get(worker.alone)
    return holder is not None and holder.alone


def end_alone(cell: Cell, job: Job) -> None:
    """Others may use the workers that the job had to itself."""
    job.alone = False
    if not job.suspect:
        return
    for worker in cell.workers.values():
        if worker.alone == job.request.id:
            worker.alone = ""
            cell.dirty = True


def exonerate(cell: Cell, job: Job) -> None:
    end_alone(cell, job)
    job.suspect = job.died_at = ""
    job.deaths = job.deaths_alone = 0
