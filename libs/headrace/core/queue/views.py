"""What the queue manager shows: status of the cell, the first of each line, and why a request waits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from headrace.core.governing import FULL, Speeds
from headrace.core.instance import NO_PACE, Pace
from headrace.core.queue.admission import AT_LEAST
from headrace.core.queue.cell import Cell, ClassCount
from headrace.core.queue.governing import slowness
from headrace.core.queue.job import Job
from headrace.core.queue.waits import wait_of, waits_of_class
from headrace.core.types import StageSpan
from headrace.core.waiting.estimate import Wait


@dataclass(frozen=True, slots=True)
class ClassView:
    slo_class: str
    queued: int
    running: int
    queue_limit: int
    oldest_wait_s: float
    estimated_wait_s: float = -1.0  # of a request that came now, until its first token; negative: no estimate
    estimated_wait_least_s: float = -1.0  # and what it will wait at least
    ttft_s: float = 0.0  # that the class promises
    encoding: int = 0  # of the queued: media of theirs are still to be encoded
    models: tuple["ClassOfModel", ...] = ()  # each one's part, where there are several


@dataclass(frozen=True, slots=True)
class ClassOfModel:
    """Of one model, what ClassView says of all."""

    model: str
    queued: int
    encoding: int
    estimated_wait_s: float = -1.0
    estimated_wait_least_s: float = -1.0


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
    loading: str = ""  # the model that is being loaded
    evicted: int = 0  # requests whose KV cache waits in its host memory
    evicted_bytes: int = 0
    host_bytes: int = 0
    block_tokens: int = 1
    pace: Pace = NO_PACE  # at full speed, as it was measured, as far as it was
    role: str = ""  # prefill, decode or both, where roles are elastic
    speeds: Speeds = FULL  # that the governor says
    slots_share: float = 1.0  # that it leaves


@dataclass(frozen=True, slots=True)
class ModelView:
    model: str
    servable: bool  # prefill and decode are there
    modalities: tuple[str, ...]  # that some live encoder can encode
    waiting: int | None = None  # requests; None: not counted
    running: int | None = None


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
    set_aside: int = 0  # requests that were given up since workers died of them


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
    group: int = 0  # the request group that it waits in; 0: none
    virtual_queue: str = ""  # the worker whose virtual queue the group stands in
    estimated_wait_bound_s: float = -1.0
    predicted_tokens: float = -1.0  # of its output; negative: nobody knows
    predicted_tokens_p90: float = -1.0
    ttft_target_s: float = 0.0
    timeline: tuple[StageSpan, ...] = ()  # what it has been through so far, as far as workers have told


def cell_view(cell: Cell, now_s: float) -> CellView:
    models = sorted(_models(cell))
    return CellView(
        epoch=cell.config.epoch,
        leader=cell.config.name,
        now_s=now_s,
        classes=tuple([_class_view(cell, name, models, now_s) for name in cell.config.classes]),
        workers=_worker_views(cell),
        models=tuple([_model_view(cell, model) for model in models]),
        accepted=cell.accepted,
        ended=sum(cell.ended_by_reason.values()),
        ended_by_reason=dict(cell.ended_by_reason),
        replaying=not cell.caught_up or cell.adopting_until_s is not None,
        set_aside=cell.set_aside,
    )


def _class_view(cell: Cell, name: str, models: Sequence[str], now_s: float) -> ClassView:
    """models: that there are."""
    slo = cell.config.classes[name]
    view = ClassView(name, 0, 0, slo.queue_limit, 0.0, ttft_s=slo.ttft_s)
    count = cell.classes.get(name)
    if count is None:
        return view
    oldest = next(iter(count.waiting.values()), None)
    wait_s = max(0.0, now_s - oldest.request.accepted_s) if oldest is not None else 0.0
    expected = waits_of_class(cell, cell.virtual, name, now_s) if cell.virtual is not None else {}
    mean_s, least_s = _told(min(expected.values(), key=lambda wait: wait.mean_s, default=None))
    several = models if len(models) > 1 else ()
    return replace(
        view,
        queued=len(count.waiting),
        running=count.running,
        oldest_wait_s=wait_s,
        estimated_wait_s=mean_s,
        estimated_wait_least_s=least_s,
        encoding=count.encoding.total(),
        models=tuple([_class_of_model(count, model, expected.get(model)) for model in several]),
    )


def _class_of_model(count: ClassCount, model: str, expected: Wait | None) -> ClassOfModel:
    return ClassOfModel(model, count.queued[model], count.encoding[model], *_told(expected))


def _told(expected: Wait | None) -> tuple[float, float]:
    """Its mean, and what it will be at least."""
    return (expected.mean_s, max(0.0, expected.bound(AT_LEAST))) if expected is not None else (-1.0, -1.0)


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
            loading=worker.loading,
            evicted=sum(seat.host_bytes > 0 for seat in worker.seats.values()),
            evicted_bytes=worker.host_used,
            host_bytes=worker.host_bytes,
            block_tokens=worker.block_tokens,
            pace=worker.pace.pace if worker.instance or worker.decodes else NO_PACE,
            role=worker.role if cell.roles is not None and worker.flexible else "",
            speeds=worker.governance.speeds,
            slots_share=worker.governance.slots_share,
        )
        for worker in known
        if worker.incarnation
    )


def _models(cell: Cell) -> set[str]:
    """Those that are loaded somewhere, and those that somebody would load."""
    loadable = {model for worker in cell.workers.values() if cell.config.swap for model in worker.loadable}
    return {*cell.pools, *loadable}


def _model_view(cell: Cell, model: str) -> ModelView:
    pool = cell.pool(model)
    servable = any(worker.prefills for worker in pool) and any(worker.decodes for worker in pool)
    servable = servable or (cell.config.swap and any(worker.can_serve(model) for worker in cell.workers.values()))
    modalities = {modality for worker in pool if worker.encodes for modality in worker.modalities}
    running = sum(worker.slots_used for worker in pool.decodes)
    running += sum(worker.decoding for worker in pool.llms if worker.role == "prefill")
    return ModelView(model, servable, tuple(sorted(modalities)), _waiting(cell, model), running)


def _waiting(cell: Cell, model: str) -> int:
    """For workers: who waits for encoders is not counted."""
    line = cell.lines.get(model)
    kinds = cell.virtual.kinds.items() if cell.virtual is not None else ()
    grouped = sum(len(jobs) for key, kind in kinds if key.model == model for jobs in kind.flows.values())
    return (len(line) if line is not None else 0) + grouped


def queue_view(cell: Cell, limit: int) -> QueueView:
    waiting = {model: _first_ids(cell, model, limit) for model in sorted(_lined(cell))}
    running = {
        seat.job.request.id: seat.job.workers() for worker in cell.workers.values() for seat in worker.seats.values()
    }
    return QueueView(waiting, running)


def _first_ids(cell: Cell, model: str, limit: int) -> tuple[str, ...]:
    """Of its line, and of the groups in its workers' virtual queues."""
    line = cell.lines.get(model)
    first = [job.request.id for job in line.first(limit)] if line is not None else []
    if cell.virtual is not None:
        first += islice(cell.virtual.waiting_for(model), limit - len(first))
    return tuple(first)


def _lined(cell: Cell) -> set[str]:
    return {*cell.lines, *(kind.model for kind in (cell.virtual.kinds if cell.virtual is not None else ()))}


def explain(cell: Cell, request_id: str, now_s: float) -> Explanation:
    job = cell.jobs.get(request_id)
    if job is None:
        if request_id in cell.ended:
            return Explanation(request_id, "ended", why="its result is stored")
        return Explanation(request_id, "unknown", why="not in the journal: ended long ago, or never accepted")
    ready_s = job.ready_s if job.state == "queued" else job.request.accepted_s
    position = _position(cell, job)
    worker = " -> ".join(job.workers()) or ", ".join(sorted({part.worker for part in job.parts if part.worker}))
    return Explanation(
        request_id,
        job.state if job.state not in ("accepted", "recovering") else "queued",
        position=position,
        waited_s=max(0.0, now_s - ready_s),
        why=_why(cell, job, position),
        attempt=job.attempt,
        worker=worker,
        ttft_target_s=cell.target_s(job.request),
        timeline=job.timeline,
        **_expectations(cell, job, position, now_s),
    )


def _position(cell: Cell, job: Job) -> int:
    if not job.ticket or job.lane is not None:
        return 0
    if job.group is not None and cell.virtual is not None:
        return cell.virtual.position(job)
    return cell.line(job.request.model).position(job)


def _expectations(cell: Cell, job: Job, position: int, now_s: float) -> dict[str, Any]:
    """What is predicted of its length, and of its wait while it stands in a group."""
    shown: dict[str, Any] = {}
    if job.length is not None or cell.lengths_matter:
        whole = cell.length_of(job)
        shown |= {"predicted_tokens": whole.mean, "predicted_tokens_p90": whole.quantile(0.9)}
    if job.group is None or cell.virtual is None:
        return shown
    shown |= {"group": job.group.id, "virtual_queue": job.group.worker}
    wait = wait_of(cell, cell.virtual, job, now_s)
    if wait is not None:
        bound_s = cell.bounds.of(wait, position)
        shown |= {"estimated_wait_s": wait.mean_s, "estimated_wait_bound_s": bound_s}
    return shown


def _why(cell: Cell, job: Job, position: int) -> str:
    if job.state == "encoding":
        left = sum(part.handle is None for part in job.parts)
        unplaced = sum(not part.worker for part in job.parts)
        return f"{left} of {len(job.parts)} media parts are not encoded yet, {unplaced} of them wait for an encoder"
    if job.state == "queued":
        return _why_queued(cell, job, position)
    if job.filling:
        return (
            f"in prefill, which has begun on {job.told} of {len(job.parts)} media parts; the others are being encoded"
        )
    return {
        "accepted": "a new queue manager waits for the workers to say what they hold",
        "recovering": "its worker was lost; what it had emitted is being looked up",
        "prefill": "in prefill",
        "handover": "its KV cache is on the way to the decode worker",
        "decode": "decoding",
        "evicted": "it made room for more urgent requests and goes on soon; its KV cache is kept in host memory",
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
    if job.group is not None:
        worker = cell.workers.get(job.group.worker)
        slow = slowness(worker) if worker is not None else ""
        return _why_grouped(cell, job, position) + (f"; {slow}" if slow else "")
    if position:
        return f"{position} requests of its model are before it"
    return "first in line: no prefill and decode worker has a free slot and enough free KV blocks"


def _why_grouped(cell: Cell, job: Job, position: int) -> str:
    assert job.group is not None
    worker = cell.workers.get(job.group.worker)
    if worker is None:
        return "no live worker can serve its model now"
    if worker.loading:
        return f"{worker.id} is loading {worker.loading}; {position} requests are before it"
    if position:
        return f"{position} requests are before it in the virtual queue of {worker.id}"
    if worker.model != job.request.model:
        return f"first in line at {worker.id}, which ends what it runs of {worker.model} and then loads its model"
    return f"first in line at {worker.id}, which has no free slot or not enough free KV blocks"
