"""Dispatch: the head of each model's line to a prefill worker with room and a decode worker that has reserved room.

Strictly in order: a head that does not fit waits, so that a long request is not overtaken for ever.
"""

from collections.abc import Iterable

from headrace.core.commands import PrefillCommand
from headrace.core.effects import SendPrefill
from headrace.core.errors import ContextTooLong
from headrace.core.queue.alone import claim_one
from headrace.core.queue.cell import Cell
from headrace.core.queue.encoding import place_parts
from headrace.core.queue.ends import fail
from headrace.core.queue.job import Job
from headrace.core.queue.line import Line
from headrace.core.queue.pool import Pool
from headrace.core.queue.spans import add_span
from headrace.core.queue.worker import Worker

Pair = tuple[Worker, Worker]  # prefill, decode: may be the same


def dispatch(cell: Cell, now_s: float) -> None:
    cell.dirty = False
    if cell.unplaced:
        place_parts(cell, now_s)
    for model, line in cell.lines.items():
        if line:
            _serve_suspects(cell, model, line, now_s)
            _serve(cell, model, line, now_s)


def _serve(cell: Cell, model: str, line: Line, now_s: float) -> None:
    pool = cell.pool(model)
    while (job := line.head()) is not None:
        pair = _choose(pool, job)
        if pair is not None:
            launch(cell, job, pair, now_s)
        elif not _refuse_if_too_large(cell, pool, job, now_s):
            return


def _serve_suspects(cell: Cell, model: str, line: Line, now_s: float) -> None:
    pool = cell.pool(model)
    while (job := line.first_suspect()) is not None:
        if _refuse_if_too_large(cell, pool, job, now_s):
            continue
        pair = _claim(cell, pool, job)
        if pair is None or not all(worker.idle for worker in pair):
            return
        job.alone = True
        launch(cell, job, pair, now_s)


def launch(cell: Cell, job: Job, pair: Pair, now_s: float) -> None:
    """Reserve at both workers and send the request on its way."""
    prefill, decode = pair
    if not job.attempt:
        cell.next_attempt(job)
    if decode is prefill:
        prefill.seat(job, job.kv_tokens)
    else:
        prefill.seat(job, job.prefill_tokens)
        decode.seat(job, job.kv_tokens)
    job.prefill, job.decode = prefill.id, decode.id
    job.sent_s = now_s
    job.resends = 0
    job.start_index = job.progress = len(job.emitted)
    add_span(cell, job, "queue", job.ready_s, now_s)
    cell.move(job, "prefill")
    send_prefill(cell, job, now_s)


def send_prefill(cell: Cell, job: Job, now_s: float) -> None:
    """Also again: a worker ignores an attempt that it has."""
    job.sent_s = now_s
    request = job.request
    command = PrefillCommand(
        job.key,
        request.model,
        request.prompt,
        request.sampling,
        job.gateway,
        job.decode,
        request.deadline_s,
        tuple([part.handle for part in job.parts if part.handle is not None]),
        job.emitted,
        request.traceparent,
        job.timeline,
        emitted_logprobs=job.logprobs,
    )
    cell.emit(SendPrefill(job.prefill, command))


def _choose(pool: Pool, job: Job) -> Pair | None:
    """A worker that does both, else the prefill worker with least pending work and the emptiest decode worker."""
    whole = _free(pool.prefills if job.one_left else pool.decodes, job.kv_tokens)
    both = min(_doing_both(whole, job), key=_prefill_load, default=None)
    if both is not None:
        return both, both
    decodes = [worker for worker in whole if worker.decodes]
    prefills = _free(pool.prefills, job.prefill_tokens) if decodes else []
    if not prefills:
        return None
    return min(prefills, key=_prefill_load), min(decodes, key=_decode_load)


def _free(workers: list[Worker], kv_tokens: int) -> list[Worker]:
    return [worker for worker in workers if not worker.alone and worker.fits(kv_tokens)]


def _doing_both(workers: Iterable[Worker], job: Job) -> list[Worker]:
    return [worker for worker in workers if worker.prefills and (worker.decodes or job.one_left)]


def _prefill_load(worker: Worker) -> tuple[int, int, str]:
    return worker.prefill_pending, worker.slots_used, worker.id


def _decode_load(worker: Worker) -> tuple[float, int, str]:
    return worker.blocks_used / max(1, worker.blocks), worker.slots_used, worker.id


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


def _refuse_if_too_large(cell: Cell, pool: Pool, job: Job, now_s: float) -> bool:
    """A request larger than every worker would wait, and hold up the line, until its deadline."""
    able = _doing_both(pool.llms, job) or pool.decodes
    able = [worker for worker in able if worker.slots]
    if not able or any(worker.could_fit(job.kv_tokens) for worker in able):
        return False
    largest = max(worker.blocks * worker.block_tokens for worker in able)
    message = f"{job.kv_tokens} tokens with all output; the largest worker holds {largest}"
    fail(cell, job, ContextTooLong(message), now_s)
    return True
