"""Room for a request that cannot wait: less urgent ones are evicted, their KV caches kept in host memory.

Weighed first: what is expected to end in time makes room by itself; who has just begun, is about to end or was evicted
often is left alone; whoever is late already is not worth it.
"""

from collections.abc import Iterator
from itertools import islice

from headrace.core.queue.cell import Cell
from headrace.core.queue.groups import Group
from headrace.core.queue.job import Job
from headrace.core.queue.operations import evict
from headrace.core.queue.running import instance_of, planner_of, running_at
from headrace.core.queue.worker import Worker
from headrace.core.stages.kv import blocks_for
from headrace.core.waiting.estimate import first_token
from headrace.core.waiting.work import NOTHING

LOOK_S = 0.05  # at the same head again: every event of a crowded mesh comes by here
AT_ONCE = 16  # requests that room is made for together
LESS_URGENT = 2.0  # whoever is evicted was promised its first token so many times later


def make_room(cell: Cell, worker: Worker, job: Job, group: Group, now_s: float) -> None:
    """For the head of a virtual queue, and those of its group that are as urgent."""
    if not cell.config.evict or not planner_of(cell).evicts or group.begun or group.due_s <= now_s:
        return
    looked_at, looked_s = worker.made_room
    if looked_at == group.id and now_s - looked_s < LOOK_S:
        return
    worker.made_room = group.id, now_s
    instance, running = instance_of(cell, worker), running_at(cell, worker, now_s)
    expected = first_token(instance, running, NOTHING, job.request.prompt.kv_tokens)
    if now_s + expected.bound(cell.config.bound_z) <= group.due_s:
        return
    waiting = list(islice(group.jobs.values(), AT_ONCE))
    for decode in [worker] if worker.whole else cell.pool(worker.model).decodes:
        _evict_for(cell, decode, waiting, group.target_s, now_s)


def _evict_for(cell: Cell, worker: Worker, waiting: list[Job], target_s: float, now_s: float) -> None:
    if worker.slots_used > worker.slots_usable:
        return  # what runs beyond the governor's share ends by itself
    slots = len(waiting) - (worker.slots_usable - worker.slots_used) - len(worker.evicting)
    blocks = sum(blocks_for(job.kv_tokens, worker.block_tokens) for job in waiting) - _blocks_coming(worker)
    if slots <= 0 and blocks <= 0:
        return
    for victim in _victims(cell, worker, target_s, now_s):
        if (slots <= 0 and blocks <= 0) or not fits_host(worker, victim):
            return
        slots -= 1
        blocks -= worker.seats[victim.request.id].blocks
        evict(cell, victim, now_s)


def _blocks_coming(worker: Worker) -> int:
    leaving = sum(worker.seats[request_id].blocks for request_id in worker.evicting)
    return worker.blocks - worker.blocks_used + leaving


def _victims(cell: Cell, worker: Worker, target_s: float, now_s: float) -> Iterator[Job]:
    """Those with the most time and the most work left first."""
    able = [seat.job for seat in worker.seats.values() if may_evict(cell, seat.job, now_s)]
    able = [job for job in able if cell.effective_target_s(job.request) >= LESS_URGENT * target_s]
    left = {job.request.id: cell.left(job)[0] for job in able}
    worth = [job for job in able if left[job.request.id] >= cell.config.evict_tokens_min]
    yield from sorted(
        worth, key=lambda job: (-cell.effective_target_s(job.request), -left[job.request.id], job.request.id)
    )


def may_evict(cell: Cell, job: Job, now_s: float) -> bool:
    return (
        job.state == "decode"
        and not job.evict_sent_s
        and not job.stop
        and not job.suspect
        and job.evictions < cell.config.evictions_max
        and now_s - job.dispatched_s >= cell.config.evict_rest_s
    )


def fits_host(worker: Worker, job: Job) -> bool:
    """Whether its KV cache, as long as it may have become by then, finds room beside those that are on their way."""
    coming = sum(_kv_bytes(worker, other) for other in worker.evicting.values())
    return worker.host_used + coming + _kv_bytes(worker, job) <= worker.host_bytes


def _kv_bytes(worker: Worker, job: Job) -> int:
    tokens = job.kv_tokens - job.request.sampling.max_tokens + job.progress
    return tokens * worker.kv_bytes_per_token
