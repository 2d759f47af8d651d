"""What still runs at a worker, as the estimator and the planner see it."""

from headrace.core.governing import Speeds
from headrace.core.planning.base import Planner
from headrace.core.planning.registry import PLANNERS
from headrace.core.queue.cell import Cell
from headrace.core.queue.job import Job
from headrace.core.queue.worker import Worker
from headrace.core.waiting.estimate import Instance
from headrace.core.waiting.work import NOTHING, Work

FRESH_S = 0.2  # lengths are estimated anew so often at most: a heartbeat tells of progress each 0.5 s


def keep_fresh(cell: Cell, now_s: float) -> None:
    """On each tick, for those that only look on."""
    for worker in cell.workers.values():
        running_work(cell, worker, now_s)


def running_work(cell: Cell, worker: Worker, now_s: float | None) -> Work:
    """Sums over the requests that compute there: tokens still to come, prompts still to prefill.

    now_s None: as they were estimated last. So asks whoever only looks on: a look that estimated them anew would change
    what is decided next, and a replayed tape has no looks.
    """
    if not worker.slots_used:
        return NOTHING
    if now_s is not None and now_s - worker.running_s > FRESH_S:
        total = NOTHING
        for seat in worker.seats.values():
            if seat.slots:
                total += left_of(cell, seat.job)
        worker.running, worker.running_s = total, now_s
    return worker.running


def left_of(cell: Cell, job: Job) -> Work:
    prompt_tokens = job.request.prompt.kv_tokens if job.state == "prefill" else 0
    slots = cell.planning.slots_of(job.request.model, job.kv_tokens)
    return Work.of(*cell.left(job), prompt_tokens, slots)


def instance_of(cell: Cell, worker: Worker) -> Instance:
    """A worker that does both; or a prefill worker with its share of the decode workers of its model."""
    if worker.whole:
        return Instance(max(1, worker.slots_usable), worker.pace_now)
    pool = cell.pool(worker.model)
    decodes, share = pool.decodes, max(1, len(pool.prefills))
    if not decodes:
        return Instance(1.0, worker.pace_now)
    slots = sum(other.slots_usable for other in decodes) / share
    speeds = Speeds(
        worker.governance.speeds.prefill, sum([other.governance.speeds.decode for other in decodes]) / len(decodes)
    )
    pace = speeds.slowed(decodes[0].pace.pace)
    return Instance(max(1.0, slots), pace, max(1, len(decodes) // share), apart=True)


def running_at(cell: Cell, worker: Worker, now_s: float | None) -> Work:
    """What keeps a virtual queue from being served: the worker's own requests, or its share of the decode workers'.
    now_s: as of running_work."""
    if worker.whole:
        return running_work(cell, worker, now_s)
    pool = cell.pool(worker.model)
    total = NOTHING
    for other in pool.decodes:
        total += running_work(cell, other, now_s)
    return total.times(1 / max(1, len(pool.prefills)))


def planner_of(cell: Cell) -> Planner:
    return PLANNERS[cell.config.planner]


def serves(cell: Cell, worker: Worker, model: str) -> bool:
    """Now, or after a load that the configuration allows."""
    return model == worker.model_to_be or (cell.config.swap and worker.can_serve(model))
