"""What the queue manager shows: status of the cell, the first of each line, and why a request waits."""

from dataclasses import dataclass

from headrace.core.queue.cell import Cell
from headrace.core.queue.job import Job


@dataclass(frozen=True, slots=True)
class ClassView:
    slo_class: str
    queued: int
    running: int
    queue_limit: int
    oldest_wait_s: float


@dataclass(frozen=True, slots=True)
class WorkerView:
    worker: str
    incarnation: str
    stages: tuple[str, ...]
    model: str
    host: str
    slots: int
    slots_used: int
    blocks: int
    blocks_used: int
    draining: bool
    last_seen_s: float
    lease_until_s: float
    pending_media_tokens: int


@dataclass(frozen=True, slots=True)
class ModelView:
    model: str
    servable: bool  # prefill and decode are there
    modalities: tuple[str, ...]  # that some live encoder can encode


@dataclass(frozen=True, slots=True)
class CellView:
    epoch: int
    leader: str
    now_s: float
    classes: tuple[ClassView, ...]
    workers: tuple[WorkerView, ...]
    models: tuple[ModelView, ...]
    accepted: int
    ended: int
    ended_by_reason: dict[str, int]
    replaying: bool  # a new leadership that does not dispatch yet


@dataclass(frozen=True, slots=True)
class QueueView:
    waiting: dict[str, tuple[str, ...]]  # model -> the first request ids of its line
    running: dict[str, tuple[str, ...]]  # request id -> workers


@dataclass(frozen=True, slots=True)
class Explanation:
    request_id: str
    state: str
    position: int = 0
    waited_s: float = 0.0
    estimated_wait_s: float = -1.0  # negative: no estimate
    why: str = ""
    attempt: int = 0
    worker: str = ""


def cell_view(cell: Cell, now_s: float) -> CellView:
    return CellView(
        epoch=cell.config.epoch,
        leader=cell.config.name,
        now_s=now_s,
        classes=class_views(cell, now_s),
        workers=_worker_views(cell),
        models=tuple([_model_view(cell, model) for model in sorted(cell.pools)]),
        accepted=cell.accepted,
        ended=sum(cell.ended_by_reason.values()),
        ended_by_reason=dict(cell.ended_by_reason),
        replaying=not cell.caught_up or cell.adopting_until_s is not None,
    )


def class_views(cell: Cell, now_s: float) -> tuple[ClassView, ...]:
    return tuple([_class_view(cell, name, now_s) for name in cell.config.classes])


def _class_view(cell: Cell, name: str, now_s: float) -> ClassView:
    limit = cell.config.classes[name].queue_limit
    count = cell.classes.get(name)
    if count is None:
        return ClassView(name, 0, 0, limit, 0.0)
    oldest = next(iter(count.waiting.values()), None)
    wait_s = max(0.0, now_s - oldest.request.accepted_s) if oldest is not None else 0.0
    return ClassView(name, len(count.waiting), count.running, limit, wait_s)


def _worker_views(cell: Cell) -> tuple[WorkerView, ...]:
    known = [cell.workers[worker_id] for worker_id in sorted(cell.workers)]
    return tuple(
        WorkerView(
            worker=worker.id,
            incarnation=worker.incarnation,
            stages=worker.stages,
            model=worker.model,
            host=worker.host,
            slots=worker.slots,
            slots_used=worker.slots_used,
            blocks=worker.blocks,
            blocks_used=worker.blocks_used,
            draining=worker.draining,
            last_seen_s=worker.last_seen_s,
            lease_until_s=worker.lease_until_s,
            pending_media_tokens=worker.media_pending,
        )
        for worker in known
        if worker.incarnation
    )


def _model_view(cell: Cell, model: str) -> ModelView:
    pool = cell.pool(model)
    servable = any(worker.prefills for worker in pool) and any(worker.decodes for worker in pool)
    modalities = {modality for worker in pool if worker.encodes for modality in worker.modalities}
    return ModelView(model, servable, tuple(sorted(modalities)))


def queue_view(cell: Cell, limit: int) -> QueueView:
    waiting = {model: _first_ids(cell, model, limit) for model in cell.lines}
    running = {
        seat.job.request.id: seat.job.workers() for worker in cell.workers.values() for seat in worker.seats.values()
    }
    return QueueView(waiting, running)


def _first_ids(cell: Cell, model: str, limit: int) -> tuple[str, ...]:
    line = cell.lines[model]
    return tuple([job.request.id for job in line.first(limit)])


def explain(cell: Cell, request_id: str, now_s: float) -> Explanation:
    job = cell.jobs.get(request_id)
    if job is None:
        if request_id in cell.ended:
            return Explanation(request_id, "ended", why="its result is stored")
        return Explanation(request_id, "unknown", why="not in the journal: ended long ago, or never accepted")
    ready_s = job.ready_s if job.state == "queued" else job.request.accepted_s
    position = cell.line(job.request.model).position(job) if job.state == "queued" else 0
    worker = " -> ".join(job.workers()) or ", ".join(sorted({part.worker for part in job.parts if part.worker}))
    return Explanation(
        request_id,
        job.state if job.state not in ("accepted", "recovering") else "queued",
        position=position,
        waited_s=max(0.0, now_s - ready_s),
        why=_why(cell, job, position),
        attempt=job.attempt,
        worker=worker,
    )


def _why(cell: Cell, job: Job, position: int) -> str:
    if job.state == "encoding":
        left = sum(part.handle is None for part in job.parts)
        unplaced = sum(not part.worker for part in job.parts)
        return f"{left} of {len(job.parts)} media parts are not encoded yet, {unplaced} of them wait for an encoder"
    if job.state == "queued":
        return _why_queued(cell, job, position)
    return {
        "accepted": "a new queue manager waits for the workers to say what they hold",
        "recovering": "its worker was lost; what it had emitted is being looked up",
        "prefill": "in prefill",
        "handover": "its KV cache is on the way to the decode worker",
        "decode": "decoding",
        "ending": "ended; its result is being stored",
    }[job.state]


def _why_queued(cell: Cell, job: Job, position: int) -> str:
    if not cell.bus_up:
        return "the bus is down"
    if not cell.dispatching:
        return "a new queue manager is still taking over"
    if not _model_view(cell, job.request.model).servable:
        return f"no live prefill and decode worker for model {job.request.model}"
    if job.suspect:
        return "workers died while they ran it: it waits to run alone"
    if position:
        return f"{position} requests of its model are before it"
    return "first in line: no prefill and decode worker has a free slot and enough free KV blocks"
