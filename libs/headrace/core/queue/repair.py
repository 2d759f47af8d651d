"""Heartbeats: who lives, and what was lost on the way. A heartbeat lists all that its worker holds; the books list all
that it should hold; wherever the two differ a message was lost, and its loss is made good here.
"""

from collections.abc import Callable
from dataclasses import replace

from headrace.core.commands import ACTIVE_HOLDS, Hold
from headrace.core.effects import SendCancel, SendDismiss, SendRelease
from headrace.core.events import Evicted, Heartbeat, Joined, PartEncoded, Prefilled
from headrace.core.instance import NO_PACE, Loadable
from headrace.core.queue.adoption import adopt, adopt_part
from headrace.core.queue.alone import exonerate
from headrace.core.queue.cell import Cell
from headrace.core.queue.encoding import lose_part, send_part
from headrace.core.queue.governing import govern
from headrace.core.queue.job import AT_WORKER, Job, Part
from headrace.core.queue.launching import send_prefill
from headrace.core.queue.operations import evicted, eviction_declined, keep_loadable, send_load, send_on
from headrace.core.queue.overlap import feed_again
from headrace.core.queue.recovery import bury, retry
from headrace.core.queue.stages import joined, leave_prefill, part_encoded, prefilled
from headrace.core.queue.worker import Worker

# A quarter of a second more under way is got used to in a few heartbeats [I].
LAG_FOLLOWS = 0.2


def heartbeat(cell: Cell, event: Heartbeat, now_s: float) -> None:
    worker = cell.workers.get(event.worker)
    if worker is not None and worker.incarnation and worker.incarnation != event.incarnation:
        if event.sent_s < worker.sent_s:
            return  # a last word of the process before this one
        bury(cell, worker, now_s, blame=True)
        worker = None
    if event.leaving:
        if worker is not None:
            bury(cell, worker, now_s, blame=False)
        return
    worker = _renew(cell, worker, event, now_s)
    worker.written_s = _written_s(worker, event, now_s)
    _follow_load(cell, worker, event, now_s)
    worker.measure(event.done)
    if cell.caught_up:
        _reconcile(cell, worker, event.holds, now_s)
        if worker.draining and not worker.seats and not worker.parts:
            cell.emit(SendDismiss(worker.id))


def _written_s(worker: Worker, event: Heartbeat, now_s: float) -> float:
    """When the heartbeat was written, on our clock: one that lay in a queue, the bus's or ours, is older than others.

    The least time under way lately is clocks' difference and the usual way; a clock that is set is got used to.
    """
    if not event.sent_s:
        return now_s
    lag_s = now_s - event.sent_s
    more_s = lag_s - worker.lag_s if worker.lag_s is not None else 0.0
    worker.lag_s = lag_s if more_s <= 0.0 or worker.lag_s is None else worker.lag_s + LAG_FOLLOWS * more_s
    return now_s - max(0.0, more_s)


def _overdue(cell: Cell, worker: Worker, sent_s: float) -> bool:
    """Its heartbeat should show by now that it was told so."""
    return worker.written_s - sent_s >= cell.config.resend_s


def _renew(cell: Cell, worker: Worker | None, event: Heartbeat, now_s: float) -> Worker:
    if worker is None:
        worker = cell.workers[event.worker] = Worker(event.worker, now_s)
        govern(cell, worker, now_s)
    if not worker.incarnation or worker.draining != event.draining:
        if not worker.incarnation:
            worker.introduce(event)
            worker.extra_slots = 0 if cell.config.pull else cell.config.unpulled_batches * worker.slots
        worker.draining = event.draining
        cell.rebuild_pools()
    worker.lease_until_s = now_s + cell.config.lease_s
    worker.last_seen_s = now_s
    worker.sent_s = event.sent_s
    return worker


def _as_planned(model: Loadable) -> Loadable:
    """Its pace is learnt all the time: no reason to plan anew."""
    return replace(model, pace=NO_PACE)


def _follow_load(cell: Cell, worker: Worker, event: Heartbeat, now_s: float) -> None:
    """What model it has, or is getting: by its own word, and by what it was told and may not have heard."""
    before, worker.loadable = worker.loadable, {each.model: each for each in event.loadable}
    _follow_loading(cell, worker, event, now_s)
    if worker.loading:
        keep_loadable(worker)
    if {*map(_as_planned, before.values())} != {*map(_as_planned, worker.loadable.values())}:
        cell.planning.instances_changed = True


def _follow_loading(cell: Cell, worker: Worker, event: Heartbeat, now_s: float) -> None:
    if event.loading:
        if worker.loading != event.loading:
            worker.loading = event.loading
            cell.rebuild_pools()
    elif worker.loading == event.model or event.model != worker.model:
        worker.introduce(event)
        worker.loading = ""
        worker.loaded_s = now_s
        cell.rebuild_pools()
    elif worker.loading and event.load_error.startswith(f"{worker.loading}:"):
        worker.unloadable.add(worker.loading)
        worker.loading = ""
        cell.count("load_failed")
        cell.rebuild_pools()
    elif worker.loading and _overdue(cell, worker, worker.load_sent_s):
        send_load(cell, worker, now_s)


def _reconcile(cell: Cell, worker: Worker, holds: tuple[Hold, ...], now_s: float) -> None:
    listed: set[str] = set()
    listed_parts: set[tuple[str, int]] = set()
    for hold in holds:
        if hold.state in ("encoding", "encoded"):
            if _know_part(cell, worker, hold, now_s):
                listed_parts.add((hold.key.request_id, hold.part))
        elif _know(cell, worker, hold, now_s):
            listed.add(hold.key.request_id)
    silent = [seat.job for seat in worker.seats.values() if seat.job.request.id not in listed]
    for job in silent:
        if _overdue(cell, worker, job.sent_s) and job.state in AT_WORKER:
            _SILENT[job.state](cell, worker, job, now_s)
    for job, part in [entry for place, entry in worker.parts.items() if place not in listed_parts]:
        if part.worker == worker.id and _overdue(cell, worker, part.sent_s):
            _part_silent(cell, job, part, now_s)


# --- what it lists ---


def _know(cell: Cell, worker: Worker, hold: Hold, now_s: float) -> bool:
    """Whether the hold is one that we want there; brings the job up to what the hold says."""
    job = cell.jobs.get(hold.key.request_id)
    if job is None:
        _drop(cell, worker, hold)
        return False
    if hold.key.attempt != job.attempt or worker.id not in job.workers():
        if adopt(cell, worker, job, hold, now_s):
            return True
        if hold.key.attempt != job.attempt or worker.id not in job.workers():
            _drop(cell, worker, hold)
        return False
    if (job.stop or job.state == "ending") and hold.state in ACTIVE_HOLDS:
        cell.emit(SendCancel(worker.id, job.key))
    _catch_up(cell, worker, job, hold, now_s)
    return True


def _catch_up(cell: Cell, worker: Worker, job: Job, hold: Hold, now_s: float) -> None:
    """The hold may tell of an event that was lost."""
    if hold.state == "evicted":
        _catch_up_evicted(cell, worker, job, hold, now_s)
    elif hold.state == "handover" and job.state == "prefill":
        prefilled(cell, Prefilled(worker.id, job.key, hold.next_index, hold.handle), now_s)
    elif hold.state == "decode" and job.state in ("prefill", "handover"):
        joined(cell, Joined(worker.id, job.key), now_s)
    elif hold.state == "prefill" == job.state and hold.lacks > len(job.parts) - job.told:
        if _overdue(cell, worker, job.fed_s):
            feed_again(cell, job, len(job.parts) - hold.lacks, now_s)
    elif hold.state == "decode" and job.evict_sent_s and _overdue(cell, worker, job.evict_sent_s):
        eviction_declined(cell, worker, job, now_s)
    job.progress = max(job.progress, hold.next_index)
    if job.died_at == "llm" and job.progress - job.start_index >= cell.config.exonerated_after:
        exonerate(cell, job)


def _catch_up_evicted(cell: Cell, worker: Worker, job: Job, hold: Hold, now_s: float) -> None:
    """Out of the engine: news to us, known, or on its way back without having heard of it."""
    news = job.state in ("prefill", "decode") or worker.id == job.decode != job.prefill
    if news and hold.handle is not None:
        evicted(cell, Evicted(worker.id, job.key, hold.next_index, hold.handle), now_s)
    elif job.state == "handover" and worker.id == job.prefill and _overdue(cell, worker, job.sent_s):
        job.resends += 1
        if job.resends > cell.config.resends_max:
            retry(cell, [job], now_s)
        else:
            send_on(cell, job, now_s)


def _know_part(cell: Cell, worker: Worker, hold: Hold, now_s: float) -> bool:
    job = cell.jobs.get(hold.key.request_id)
    if job is None or hold.part >= len(job.parts):
        _drop(cell, worker, hold)
        return False
    part = job.parts[hold.part]
    if (part.worker, part.attempt) != (worker.id, hold.key.attempt):
        if adopt_part(cell, worker, job, part, hold, now_s):
            return True
        # A release frees, and fences, all of an attempt: never of one that runs, or may come to run, at this worker.
        elsewhere = job.state in AT_WORKER and worker.id not in job.workers()
        if hold.key.attempt != job.attempt or elsewhere:
            _drop(cell, worker, hold)
        return False
    if hold.state == "encoded" and hold.handle is not None:
        part_encoded(cell, PartEncoded(worker.id, hold.key, hold.part, hold.handle), now_s)
    return True


def _drop(cell: Cell, worker: Worker, hold: Hold) -> None:
    if hold.state in ACTIVE_HOLDS:
        cell.emit(SendCancel(worker.id, hold.key))
    cell.emit(SendRelease(worker.id, hold.key))


# --- what it does not list, a while after we told it ---


def _prefill_silent(cell: Cell, worker: Worker, job: Job, now_s: float) -> None:
    """The command was lost; perhaps embeddings with it. A decode worker has nothing to list yet."""
    if worker.id != job.prefill:
        return
    job.resends += 1
    if job.resends > cell.config.resends_max or job.encoded_first < job.told:
        retry(cell, [job], now_s)
    else:
        send_prefill(cell, job, now_s)


def _handover_silent(cell: Cell, worker: Worker, job: Job, now_s: float) -> None:
    """The KV cache is on its way, or the word of it was lost. A decode worker lists a request once it has joined."""
    if worker.id == job.prefill != job.decode:
        leave_prefill(cell, job)  # it keeps the KV cache no longer
        job.sent_s = now_s
    elif not job.prefill or now_s - job.sent_s >= job.patience_s:
        retry(cell, [job], now_s)


def _decode_silent(cell: Cell, worker: Worker, job: Job, now_s: float) -> None:
    retry(cell, [job], now_s)


_SILENT: dict[str, Callable[[Cell, Worker, Job, float], None]] = {
    "prefill": _prefill_silent,
    "handover": _handover_silent,
    "decode": _decode_silent,
    "evicted": _decode_silent,
}


def _part_silent(cell: Cell, job: Job, part: Part, now_s: float) -> None:
    part.resends += 1
    if part.handle is None and part.resends <= cell.config.resends_max:
        send_part(cell, job, part, now_s)
    else:
        lose_part(cell, job, part, now_s)
        if job.bereft:
            retry(cell, [job], now_s)
