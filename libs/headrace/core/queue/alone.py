"""Suspects: a job that a worker died with runs alone until it has proved harmless; only the guilty are condemned."""

from headrace.core.queue.cell import Cell
from headrace.core.queue.job import Job
from headrace.core.queue.worker import Worker


def claim_one(workers: list[Worker], job: Job) -> Worker | None:
    """Set the least busy worker aside for a suspect; at most half of them, so that the others are served on."""
    free = [worker for worker in workers if not worker.alone]
    if len(workers) - len(free) >= max(1, len(workers) // 2) or not free:
        return None
    claimed = min(free, key=lambda worker: (worker.media_pending, len(worker.seats), worker.id))
    claimed.alone = job.request.id
    return claimed


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
    job.suspect = ""
    job.deaths_alone = 0
