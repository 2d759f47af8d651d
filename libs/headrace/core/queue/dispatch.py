"""Dispatch: the head of each model's line to a prefill worker with room and a decode worker that has reserved room.

Strictly in order: a head that does not fit waits, so that a long request is not overtaken for ever.
"""

from collections.abc import Iterable

from headrace.core.queue.alone import claim_one
from headrace.core.queue.cell import Cell
from headrace.core.queue.config import QueueConfig
from headrace.core.queue.encoding import place_parts, whole_load
from headrace.core.queue.job import Job
from headrace.core.queue.launching import Pair, decode_for, decode_load, launch, prefill_load, refuse_if_too_large
from headrace.core.queue.line import Line
from headrace.core.queue.overlap import begin_early
from headrace.core.queue.pool import Pool
from headrace.core.queue.preempting import go_on_if_room, preempt_for
from headrace.core.queue.serving import serve
from headrace.core.queue.worker import Worker
from headrace.core.stages.routing import blindly


def dispatch(cell: Cell, now_s: float) -> None:
    cell.dirty = False
    if cell.unplaced:
        place_parts(cell, now_s)
    for model, line in cell.lines.items():
        if line:
            _serve_suspects(cell, model, line, now_s)
            _serve(cell, model, line, now_s)
    if cell.virtual is not None:
        serve(cell, cell.virtual, now_s)
    if cell.early:
        begin_early(cell, now_s)


def _serve(cell: Cell, model: str, line: Line, now_s: float) -> None:
    pool = cell.pool(model)
    while (job := line.head()) is not None:
        if job.state == "evicted":
            if not go_on_if_room(cell, pool, job, now_s):
                return
            continue
        pair = _choose(cell, pool, job)
        if pair is not None:
            launch(cell, job, pair, now_s)
        elif not refuse_if_too_large(cell, job, now_s):
            preempt_for(cell, pool, job, now_s)
            return


def _serve_suspects(cell: Cell, model: str, line: Line, now_s: float) -> None:
    pool = cell.pool(model)
    while (job := line.first_suspect()) is not None:
        if refuse_if_too_large(cell, job, now_s):
            continue
        pair = _claim(cell, pool, job)
        if pair is None or not all(worker.idle for worker in pair):
            return
        job.alone = True
        launch(cell, job, pair, now_s)


def _choose(cell: Cell, pool: Pool, job: Job) -> Pair | None:
    """A worker that does both, else the prefill worker with least pending work and the emptiest decode worker."""
    if pool.split:
        return _choose_by_role(cell, pool, job)
    whole = _free(pool.prefills if job.one_left else pool.decodes, job.kv_tokens)
    both = _best(cell, _doing_both(whole, job), job)
    if both is not None:
        return both, both
    decodes = [worker for worker in whole if worker.decodes]
    prefills = _free(pool.prefills, job.prefill_tokens) if decodes else []
    prefill = _best(cell, prefills, job)
    return (prefill, min(decodes, key=decode_load)) if prefill is not None else None


def _best(cell: Cell, workers: list[Worker], job: Job) -> Worker | None:
    """Of those that may prefill it."""
    config = cell.config
    home = cell.workers.get(job.parts[0].worker) if config.together and job.parts else None
    if home is not None and not home.draining:
        return home if home in workers else None
    if config.routing != "least-pending":
        chosen = blindly(workers, config.routing, cell.turns[_stage(config)], job.request.id)
        cell.turns[_stage(config)] += chosen is not None
        return chosen
    return min(workers, key=whole_load if config.together else prefill_load, default=None)


def _stage(config: QueueConfig) -> str:
    """Whose turns are counted: requests with media and without take turns together where both run whole."""
    return "encode" if config.together else "prefill"


def _choose_by_role(cell: Cell, pool: Pool, job: Job) -> Pair | None:
    """The prefill worker with least pending work and the emptiest decode worker; the same one where both are it."""
    decode = None if job.one_left else decode_for(pool, job)
    if decode is None and not job.one_left:
        return None
    prefills = _free(pool.prefills, job.kv_tokens if job.one_left else job.prefill_tokens)
    prefill = _best(cell, prefills, job)
    return (prefill, decode or prefill) if prefill is not None else None


def _free(workers: list[Worker], kv_tokens: int) -> list[Worker]:
    return [worker for worker in workers if not worker.alone and worker.fits(kv_tokens)]


def _doing_both(workers: Iterable[Worker], job: Job) -> list[Worker]:
    return [worker for worker in workers if worker.prefills and (worker.decodes or job.one_left)]


def _claim(cell: Cell, pool: Pool, job: Job) -> Pair | None:
    """The workers set aside for this suspect, claimed now if none are: at most half of a pool stands aside."""
    whole = [worker for worker in pool.llms if worker.could_fit(job.kv_tokens)]
    both = _claim_from(cell, _doing_both(whole, job), job)
    if both is not None:
        return both, both
    prefills = [worker for worker in pool.prefills if worker.could_fit(job.prefill_tokens)]
    prefill = _claim_from(cell, prefills, job)
    decode = _claim_from(cell, [worker for worker in whole if worker.decodes], job)
    if prefill is not None and decode is not None:
        return prefill, decode
    for half in (prefill, decode):
        if half is not None:
            half.alone = ""  # half a pair helps nobody
    return None


def _claim_from(cell: Cell, workers: list[Worker], job: Job) -> Worker | None:
    own = next((worker for worker in workers if worker.alone == job.request.id), None)
    return own or claim_one(cell, workers, job)
