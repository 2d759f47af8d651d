"""Media parts: to the encoder that had the same content lately, or has least pending tokens; kept there until prefill
has them, lost and found again.
"""

from headrace.core.commands import EncodeCommand
from headrace.core.effects import SendEncode, SendRelease
from headrace.core.ordering import ORDERS
from headrace.core.queue.alone import claim_one, end_alone
from headrace.core.queue.cell import Cell
from headrace.core.queue.job import Job, Lane, Part
from headrace.core.queue.line import Line
from headrace.core.queue.spans import add_span
from headrace.core.queue.worker import Worker
from headrace.core.stages.content import Content, Home, content_of
from headrace.core.stages.routing import blindly, least_pending_at_home, roomy
from headrace.core.types import Key


def make_ready(cell: Cell, job: Job, now_s: float) -> None:
    """Into the waiting line, or first to the encoders with what is not encoded."""
    if job.state == "encoding":
        add_span(cell, job, "media", job.ready_s, now_s)
    job.ready_s = now_s if job.ready_s else job.request.accepted_s
    if job.encoded:
        cell.move(job, "queued")
        return
    cell.move(job, "encoding")
    if not job.attempt:
        cell.next_attempt(job)
    join_lane(cell, job)


def join_lane(cell: Cell, job: Job) -> None:
    """Wait for an encoder, in order among those who want the same kind."""
    missing = next((part for part in job.parts if not part.worker), None)
    if missing is None:
        return
    leave_lane(cell, job)
    lane: Lane = (job.request.model, job.request.media[missing.index].meta.modality, job.suspect == "encode")
    line = cell.unplaced.get(lane)
    if line is None:
        line = cell.unplaced[lane] = Line(ORDERS[cell.config.order])
    line.push(job, cell.standing(job))
    job.lane = lane
    cell.dirty = True


def leave_lane(cell: Cell, job: Job) -> None:
    if job.lane is not None:
        line = cell.unplaced[job.lane]
        line.leave(job)
        if not line:
            del cell.unplaced[job.lane]
        job.lane = None


def place_parts(cell: Cell, now_s: float) -> None:
    """Send out what encoders have room for; in every lane the first that cannot go holds up the others."""
    for lane in list(cell.unplaced):
        while (line := cell.unplaced.get(lane)) is not None:
            job = line.head()
            assert job is not None, f"{lane}: an empty lane is kept"
            waits_for = _place_job(cell, job, now_s)
            if waits_for is None:
                leave_lane(cell, job)
            elif job.request.media[waits_for.index].meta.modality != lane[1]:
                join_lane(cell, job)
            else:
                break


def _place_job(cell: Cell, job: Job, now_s: float) -> Part | None:
    """Place all parts, largest first; encoders are told in the prompt's order, in which prefill wants them.

    Returns a part that must wait, or None.
    """
    missing = sorted((part for part in job.parts if not part.worker), key=lambda part: -part.tokens)
    placed, waits = list[Part](), None
    for part in missing:
        encoder = _encoder_alone(cell, job, part) if job.suspect == "encode" else _encoder(cell, job, part)
        if encoder is None:
            waits = part
            break
        encoder.place(job, part)
        part.attempt = job.attempt
        placed.append(part)
    for part in sorted(placed, key=lambda part: part.index):
        send_part(cell, job, part, now_s)
    return waits


def send_part(cell: Cell, job: Job, part: Part, now_s: float) -> None:
    part.sent_s = now_s
    request = job.request
    key = Key(request.id, part.attempt)
    target_s = cell.effective_target_s(request)
    command = EncodeCommand(
        key,
        part.index,
        request.media[part.index],
        request.model,
        request.traceparent,
        _scope(cell, job),
        request.accepted_s + target_s if target_s else 0.0,
    )
    cell.emit(SendEncode(part.worker, command))


def _scope(cell: Cell, job: Job) -> str:
    """Whose requests its embeddings are shared with. What has failed, or is suspected, is computed anew and shared with
    nobody."""
    if cell.config.encoder_cache == "off" or job.stage_failures or job.suspect:
        return ""
    return "all" if cell.config.encoder_cache == "all" else f"tenant {job.request.tenant}"


def _content(cell: Cell, job: Job, part: Part) -> Content | None:
    return content_of(_scope(cell, job), job.request.model, job.request.media[part.index])


def _candidates(cell: Cell, job: Job, part: Part) -> list[Worker]:
    modality = job.request.media[part.index].meta.modality
    return cell.pool(job.request.model).encoders(modality)


def _encoder(cell: Cell, job: Job, part: Part) -> Worker | None:
    free = [worker for worker in _candidates(cell, job, part) if not worker.alone]
    config, content = cell.config, _content(cell, job, part)
    if config.together:
        return _with_the_others(cell, job, part, free)
    if config.routing != "least-pending":
        return _in_turn(cell, roomy(free, part.tokens, config.encoder_window_tokens), f"{job.request.id}/{part.index}")
    homes = cell.affinity.homes(content) if content is not None else ()
    window, memory = config.encoder_window_tokens, config.encoder_memory_tokens
    chosen = least_pending_at_home(free, homes, part.tokens, window, config.affinity_factor, memory)
    if chosen is not None and content is not None:
        cell.affinity.sent(content, Home(chosen.id, chosen.incarnation))
    return chosen


def _with_the_others(cell: Cell, job: Job, part: Part, free: list[Worker]) -> Worker | None:
    """Where its request's first part went, full or not: only prefill frees room there, and it needs all of them."""
    went = {other.worker for other in job.parts}
    there = next((worker for worker in free if worker.id in went), None)
    if there is not None:
        return there
    able = roomy([worker for worker in free if worker.prefills], part.tokens, cell.config.encoder_window_tokens)
    if cell.config.routing != "least-pending":
        return _in_turn(cell, able, job.request.id)
    return min(able, key=whole_load, default=None)


def _in_turn(cell: Cell, able: list[Worker], name: str) -> Worker | None:
    chosen = blindly(able, cell.config.routing, cell.turns["encode"], name)
    cell.turns["encode"] += chosen is not None
    return chosen


def whole_load(worker: Worker) -> tuple[int, int, str]:
    """Of one that encodes and prefills."""
    return worker.media_pending + worker.prefill_pending, worker.slots_used, worker.id


def _encoder_alone(cell: Cell, job: Job, part: Part) -> Worker | None:
    """A suspect gets an encoder to itself: one is claimed, and used once it is idle."""
    own = [worker for worker in _candidates(cell, job, part) if worker.alone == job.request.id]
    if not own:
        claimed = claim_one(cell, _candidates(cell, job, part), job)
        own = [claimed] if claimed is not None else []
    if not own or not (job.alone or own[0].idle):
        return None
    job.alone = True
    return own[0]


def release_parts(cell: Cell, job: Job) -> None:
    """Nobody needs the embeddings any more. A worker that keeps the same attempt's tokens frees all at the end."""
    told: set[tuple[str, int]] = set()
    for part in job.parts:
        worker = cell.workers.get(part.worker)
        if worker is None or (part.attempt == job.attempt and part.worker in job.workers()):
            continue
        if (part.worker, part.attempt) not in told:
            told.add((part.worker, part.attempt))
            cell.emit(SendRelease(part.worker, Key(job.request.id, part.attempt)))
        worker.displace(job, part)
        cell.dirty = True


def lose_part(cell: Cell, job: Job, part: Part, now_s: float) -> None:
    """The part is not where it was; the worker's books are still open. Prefill may have fetched it: it will tell."""
    worker = cell.workers.get(part.worker)
    assert worker is not None, f"part {part.index} of {job.key} is nowhere"
    attempt = part.attempt
    worker.displace(job, part)
    if job.state == "queued":
        end_alone(cell, job)
        cell.move(job, "encoding")
    if job.state == "encoding":
        if attempt == job.attempt:  # once for all parts of an attempt
            cell.next_attempt(job)
        join_lane(cell, job)
