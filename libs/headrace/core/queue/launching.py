"""Sending a request to its workers: what every way of dispatching shares."""

from headrace.core.commands import PrefillCommand
from headrace.core.effects import SendPrefill
from headrace.core.errors import ContextTooLong
from headrace.core.queue.cell import Cell
from headrace.core.queue.ends import fail
from headrace.core.queue.groups import flow_of
from headrace.core.queue.job import Job
from headrace.core.queue.pool import Pool
from headrace.core.queue.shares import INPUT_WEIGHT, OUTPUT_WEIGHT
from headrace.core.queue.spans import add_span
from headrace.core.queue.worker import Worker
from headrace.core.stages.kv import blocks_for

Pair = tuple[Worker, Worker]  # prefill, decode: may be the same


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
    job.sent_s = job.dispatched_s = now_s
    job.resends = 0
    job.start_index = job.progress = len(job.emitted)
    job.told = job.encoded_first
    add_span(cell, job, "queue", job.ready_s, now_s)
    cell.move(job, "prefill")
    if cell.roles is not None:
        cell.roles.sent(job.request.model, len(job.request.prompt.tokens), now_s)
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
        tuple([part.handle for part in job.parts[: job.told] if part.handle is not None]),
        job.emitted,
        request.traceparent,
        job.timeline,
        emitted_logprobs=job.logprobs,
    )
    cell.emit(SendPrefill(job.prefill, command))


def charge(cell: Cell, job: Job, output_tokens: float, now_s: float) -> None:
    """To its tenant's share, as much as is expected; ends.learn puts it right."""
    if cell.virtual is None:
        return
    owed = INPUT_WEIGHT * len(job.request.prompt.tokens) + OUTPUT_WEIGHT * output_tokens
    before, job.charged = job.charged, owed  # by an attempt that was lost
    cell.virtual.shares_of(job.request.slo_class).charge_both(flow_of(job), owed - before, now_s)


def prefill_load(worker: Worker) -> tuple[bool, float, int, str]:
    """The text target is whoever has least of this: pending prompt positions, which are all tokens of a decoder-only
    model and the text tokens of a cross-attention one, whose media stand beside (ModServe, arXiv 2502.00937); of a
    worker that the governor slows down, or would have less of, as many more."""
    return worker.risky, worker.prefill_pending / worker.prefill_share, worker.slots_used, worker.id


def decode_load(worker: Worker) -> tuple[bool, float, int, str]:
    blocks_share = worker.blocks_used / max(1, worker.blocks)
    return worker.risky, blocks_share / worker.decode_share, worker.slots_used, worker.id


def decode_for(pool: Pool, job: Job) -> Worker | None:
    """The emptiest worker with room to decode it; one that prefills beside, where nobody else has any."""
    able = [worker for worker in pool.decodes if not worker.alone and worker.fits_beside(job.kv_tokens)]
    return min(able, key=lambda worker: (worker.hinge, *decode_load(worker)), default=None)


def refuse_if_too_large(cell: Cell, job: Job, now_s: float) -> bool:
    """A request larger than every worker would wait, and hold up the line, until its deadline."""
    rooms = [room for worker in cell.workers.values() if (room := _room(cell, worker, job))]
    if not rooms or any(room[0] >= blocks_for(job.kv_tokens, room[1]) for room in rooms):
        return False
    largest = max(blocks * block_tokens for blocks, block_tokens in rooms)
    message = f"{job.kv_tokens} tokens with all output; the largest worker holds {largest}"
    fail(cell, job, ContextTooLong(message), now_s)
    return True


def _room(cell: Cell, worker: Worker, job: Job) -> tuple[int, int] | None:
    """Blocks and their tokens, of a worker that could take the whole request, now or with another model."""
    if not worker.incarnation or worker.draining or not (worker.decodes or (worker.prefills and job.one_left)):
        return None
    if worker.model == job.request.model and not worker.loading:
        return (worker.blocks, worker.block_tokens) if worker.slots else None
    other = worker.loadable.get(job.request.model)
    return (other.blocks, other.block_tokens) if other is not None and cell.config.swap and other.slots else None
