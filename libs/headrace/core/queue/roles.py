"""Roles in the queue manager: what it sees of the load of prefill and decode, and what a worker's role changes here.

A role is in our books alone: a worker that announces both stages takes whatever it is sent. What it has begun it ends.
"""

from collections import defaultdict
from collections.abc import Iterable

from headrace.core.governing import Speeds
from headrace.core.queue.cell import Cell
from headrace.core.queue.job import Job
from headrace.core.queue.pool import Pool
from headrace.core.queue.worker import Worker
from headrace.core.stages.kv import blocks_for
from headrace.core.stages.roles import NEW_S, Elastic, Member, Role, Sight

LOOK_S = 1.0  # two heartbeats
CLEAR_SHARE = 0.5  # of the strictest target: what waits should have begun by then [I]
NO_TARGET_S = 60.0  # where no class says one [I]


def follow_roles(cell: Cell, now_s: float) -> None:
    """A look each second; at once when workers have come or gone, so that no stage is left without one."""
    roles = cell.roles
    if roles is None or not cell.dispatching or (roles.pools is cell.pools and now_s < roles.next_s):
        return
    roles.next_s = now_s + LOOK_S
    jobs = _by_model(cell.jobs.values())
    changed = False
    for model, pool in cell.pools.items():
        members = _members(pool)
        if members:
            policy = roles.policies.setdefault(model, Elastic())
            sight = _sight(cell, pool, members, jobs[model], now_s)
            changed |= _assign(cell, members, policy.choose(sight, now_s), now_s)
        for worker in pool.llms:
            if worker.role_s != NEW_S and worker not in members:  # the last one, or of another size than the others
                worker.take_role("both", NEW_S)
                changed = True
    if changed:
        cell.rebuild_pools()
    roles.pools = cell.pools


def _by_model(jobs: Iterable[Job]) -> dict[str, list[Job]]:
    found: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        found[job.request.model].append(job)
    return found


def _members(pool: Pool) -> list[Worker]:
    """Those whose role may change: both stages, one model for ever, and KV caches that can leave the engine, of which
    it tells by keeping evicted ones. All of one size, else a request might fit the decode workers no more."""
    able = [worker for worker in pool.llms if worker.flexible]
    alike = {(worker.slots, worker.blocks, worker.block_tokens) for worker in able}
    return able if len(alike) == 1 and len(pool.llms) > 1 else []


def _assign(cell: Cell, members: list[Worker], wanted: dict[str, Role], now_s: float) -> bool:
    whole = set(wanted.values()) == {"both"}
    changed = False
    for worker in members:
        role = wanted[worker.id]
        hinge = role == "both" and not whole
        if worker.role_s == NEW_S or (role, hinge) != (worker.role, worker.hinge):
            if worker.role_s != NEW_S and role != worker.role:
                cell.count("role_changed")
            since_s = now_s if worker.role_s == NEW_S or role != worker.role else worker.role_s
            worker.take_role(role, since_s, hinge=hinge)
            changed = True
    return changed


# --- what there is to do, in workers ---


def _sight(cell: Cell, pool: Pool, members: list[Worker], jobs: list[Job], now_s: float) -> Sight:
    ids = {worker.id for worker in members}
    clear_s = CLEAR_SHARE * _tightest_s(cell)
    return Sight(
        members=[_member(worker) for worker in members],
        hint=cell.governing.moves.get("prefill", 0) - cell.governing.moves.get("decode", 0),
        prefill_load=_prefill_load(cell, members, jobs, clear_s, now_s),
        decode_load=_decode_load(cell, members, jobs, clear_s),
        other_prefills=sum(worker.prefills and worker.id not in ids for worker in pool.llms),
        other_decodes=sum(worker.decodes and worker.id not in ids for worker in pool.llms),
    )


def _member(worker: Worker) -> Member:
    return Member(worker.id, worker.role, worker.role_s, worker.prefill_pending, worker.decoding)


def _tightest_s(cell: Cell) -> float:
    """Of the classes that have had requests."""
    asked = [slo.ttft_s for name, slo in cell.config.classes.items() if name in cell.classes]
    return min(asked, default=NO_TARGET_S)


def _prefill_load(cell: Cell, members: list[Worker], jobs: list[Job], clear_s: float, now_s: float) -> float:
    """What was sent to prefill of late goes on coming; what waits is to be prefilled within clear_s."""
    assert cell.roles is not None
    token_s = sum(worker.pace_now.prefill_token_s for worker in members) / len(members)
    waiting = sum([len(job.request.prompt.tokens) for job in jobs if job.state in ("queued", "prefill")])
    return token_s * (cell.roles.sent_per_s(members[0].model, now_s) + waiting / clear_s)


def _decode_load(cell: Cell, members: list[Worker], jobs: list[Job], clear_s: float) -> float:
    """What sits at workers takes its room; what waits is to be decoded by so many workers that it begins in clear_s."""
    worker = members[0]
    speed = sum([each.governance.speeds.decode for each in members]) / len(members)
    pace = Speeds(decode=speed).slowed(worker.pace.pace)
    most = max(1.0, sum([each.slots_usable for each in members]) / len(members))
    tbt_s = min([slo.tbt_s for name, slo in cell.config.classes.items() if slo.tbt_s and name in cell.classes] or [0.0])
    if tbt_s and pace.sequence_s:  # beyond, tokens come later than is promised
        most = min(most, max(1.0, (tbt_s - pace.step_s) / pace.sequence_s))
    seated = [job for job in jobs if job.state in ("prefill", "handover", "decode")]
    waiting = [job for job in jobs if job.state in ("queued", "evicted")]
    blocks = [blocks_for(job.kv_tokens, worker.block_tokens) for job in seated]
    load = max(len(seated) / most, sum(blocks) / max(1, worker.blocks))
    if waiting:
        per_sequence = sum([blocks_for(job.kv_tokens, worker.block_tokens) for job in waiting]) / len(waiting)
        most = min(most, max(1.0, worker.blocks / max(1.0, per_sequence)))
        tokens = sum([cell.left(job)[0] for job in waiting])
        load += tokens * (pace.step_s / most + pace.sequence_s) / clear_s
    return load
