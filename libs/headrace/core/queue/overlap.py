"""Overlap of encode and prefill within one request: prefill begins on the first media parts while others are encoded.

ModServe (arXiv 2502.00937) prefills once all of a request's media are there; RServe and ElasticMM do not wait so long.
It takes only what nobody who is ready asks for: a slot and blocks at workers that have plenty left, and there what
iterations have to spare (headrace.core.stages.batch). Whoever loses a part, or a worker, gets a new attempt.
"""

from collections import Counter

from headrace.core.commands import PartsCommand
from headrace.core.effects import SendParts
from headrace.core.queue.cell import Cell
from headrace.core.queue.job import Job
from headrace.core.queue.launching import Pair, charge, decode_load, launch, prefill_load
from headrace.core.queue.recovery import retry
from headrace.core.queue.spans import add_span
from headrace.core.queue.worker import Worker
from headrace.core.stages.kv import blocks_for
from headrace.core.types import PART_STAGES


def part_came(cell: Cell, job: Job, now_s: float) -> None:
    """One of its parts is encoded, and it is not the last."""
    if job.filling:
        feed(cell, job, now_s)
    elif _may_begin(cell, job):
        cell.early[job.request.id] = job
        cell.dirty = True


def _may_begin(cell: Cell, job: Job) -> bool:
    """Who has failed before waits for all parts: what it fails of is then easier to tell."""
    config = cell.config
    if (
        not config.overlap
        or config.together
        or job.state != "encoding"
        or job.lane is not None
        or not job.encoded_first
    ):
        return False
    return not (job.suspect or job.deaths or job.stage_failures or job.put_back)


# --- it begins ---


def begin_early(cell: Cell, now_s: float) -> None:
    """Behind everybody who is ready."""
    full = set[str]()  # models
    for job in list(cell.early.values()):
        model = job.request.model
        if model in full:
            continue
        if not _may_begin(cell, job):  # a part was lost
            del cell.early[job.request.id]
            continue
        takers = [] if _somebody_waits(cell, model) else _takers(cell, model)
        if not takers:
            full.add(model)
        elif (pair := _pair(cell, job, takers)) is not None:
            _begin(cell, job, pair, now_s)


def _begin(cell: Cell, job: Job, pair: Pair, now_s: float) -> None:
    add_span(cell, job, "media", job.ready_s, now_s)
    job.ready_s = job.fed_s = now_s
    cell.filling[job.request.id] = job
    cell.count("overlap")
    charge(cell, job, cell.left(job)[0], now_s)
    launch(cell, job, pair, now_s)


def _somebody_waits(cell: Cell, model: str) -> bool:
    """Ready, and without a worker."""
    if cell.lines.get(model):
        return True
    return cell.virtual is not None and any(key.model == model for key in cell.virtual.kinds)


def _takers(cell: Cell, model: str) -> list[Worker]:
    _sweep(cell)
    filling = Counter(job.prefill for job in cell.filling.values())
    return [
        worker
        for worker in cell.pool(model).prefills
        if worker.overlaps
        and not worker.risky
        and _is_free(cell, worker)
        and filling[worker.id] < cell.config.overlap_max
    ]


def _pair(cell: Cell, job: Job, takers: list[Worker]) -> Pair | None:
    busy = {part.worker for part in job.parts if part.handle is None}  # they would take turns with what they encode
    prefills = [worker for worker in takers if worker.id not in busy]
    both = [worker for worker in prefills if worker.whole or job.one_left]
    both = [worker for worker in both if _has_plenty(cell, worker, job.kv_tokens)]
    if both:
        worker = min(both, key=prefill_load)
        return worker, worker
    decodes = [worker for worker in cell.pool(job.request.model).decodes if not worker.alone]
    decodes = [worker for worker in decodes if _has_plenty(cell, worker, job.kv_tokens)]
    prefills = [worker for worker in prefills if _has_plenty(cell, worker, job.prefill_tokens)] if decodes else []
    return (min(prefills, key=prefill_load), min(decodes, key=decode_load)) if prefills else None


def _is_free(cell: Cell, worker: Worker) -> bool:
    """Nobody has a claim on its room: a suspect, or a virtual queue, perhaps of another model."""
    queue = cell.virtual.queues.get(worker.id) if cell.virtual is not None else None
    return not worker.alone and not (queue is not None and queue.groups)


def _has_plenty(cell: Cell, worker: Worker, kv_tokens: int) -> bool:
    share, blocks = cell.config.overlap_share, blocks_for(kv_tokens, worker.block_tokens)
    return worker.slots_used + 1 <= share * worker.slots_usable and worker.blocks_used + blocks <= share * worker.blocks


def _sweep(cell: Cell) -> None:
    """Who has got all its parts since, or has ended."""
    for request_id in [request_id for request_id, job in cell.filling.items() if not job.filling]:
        del cell.filling[request_id]


# --- it goes on ---


def feed(cell: Cell, job: Job, now_s: float) -> None:
    """Tell its prefill worker of the parts that it can go on with."""
    first = job.told
    while job.filling and job.parts[job.told].handle is not None:
        job.told += 1
    if job.told > first:
        _send(cell, job, first, now_s)


def feed_again(cell: Cell, job: Job, first: int, now_s: float) -> None:
    """The worker lacks what it was told of: the command was lost."""
    job.resends += 1
    gone = any(part.handle is None for part in job.parts[first : job.told])
    if gone or job.resends > cell.config.resends_max:
        retry(cell, [job], now_s)
    else:
        _send(cell, job, first, now_s)


def _send(cell: Cell, job: Job, first: int, now_s: float) -> None:
    job.fed_s = now_s
    handles = tuple([part.handle for part in job.parts[first : job.told] if part.handle is not None])
    spans = [span for span in job.timeline if span.stage in PART_STAGES and first <= span.part < job.told]
    cell.emit(SendParts(job.prefill, PartsCommand(job.key, first, handles, tuple(spans))))


# --- it makes room ---


def put_back(cell: Cell, now_s: float) -> None:
    """Who has had no part for a while gives its room to those who are ready and find none."""
    _sweep(cell)
    long_ago_s = now_s - cell.config.overlap_patience_s
    starved = [
        job for job in cell.filling.values() if job.fed_s <= long_ago_s and not job.stop and _in_the_way(cell, job)
    ]
    for job in starved:
        job.put_back = True
        cell.count("put_back")
    retry(cell, starved, now_s)


def _in_the_way(cell: Cell, job: Job) -> bool:
    return _somebody_waits(cell, job.request.model) or not _is_free(cell, cell.workers[job.prefill])
