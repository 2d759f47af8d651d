"""Which requests a worker at risk is spared: those that others are expected to take in time.

TAPAS (ASPLOS 2025) filters instances whose risk is high before it looks at locality; here what is promised comes first:
who would be late elsewhere may still go there.
"""

from collections.abc import Iterator

from headrace.core.queue.cell import Cell
from headrace.core.queue.groups import Group
from headrace.core.queue.running import instance_of, running_at
from headrace.core.queue.virtual import VirtualQueues
from headrace.core.queue.worker import Worker
from headrace.core.waiting.estimate import first_token
from headrace.core.waiting.work import NOTHING

LOOK_S = 0.05  # at the same group again: every event comes by here


def is_spared(cell: Cell, virtual: VirtualQueues, worker: Worker, group: Group, now_s: float) -> bool:
    """Whether the worker leaves the group to others. What has begun goes on."""
    if not worker.risky or group.begun:
        return False
    looked_at, looked_s, answer = worker.spared
    if looked_at != group.id or now_s - looked_s >= LOOK_S:
        answer = safe_place(cell, virtual, group, now_s) is not None
        worker.spared = group.id, now_s, answer
    return answer


def safe_place(cell: Cell, virtual: VirtualQueues, group: Group, now_s: float) -> tuple[str, int] | None:
    """The worker without risk that is expected to take it soonest, and the place in its virtual queue behind all that
    is due before; None: none of them would be in time."""
    best: tuple[float, str, int] | None = None
    prompt_tokens = group.work.prompt_tokens / max(1.0, group.work.count)
    for other in _safe(cell, virtual, group.model):
        ahead, position = NOTHING, 0
        for each in virtual.queues[other.id].groups:
            if each is not group and each.due_s <= group.due_s:
                ahead += each.work
                position += 1
        wait = first_token(instance_of(cell, other), running_at(cell, other, now_s), ahead, prompt_tokens)
        if now_s + wait.bound(cell.config.bound_z) <= group.due_s and (best is None or wait.mean_s < best[0]):
            best = wait.mean_s, other.id, position
    return best[1:] if best is not None else None


def _safe(cell: Cell, virtual: VirtualQueues, model: str) -> Iterator[Worker]:
    for worker in cell.pool(model).prefills:
        if not worker.risky and not worker.alone and worker.slots_usable and worker.id in virtual.queues:
            yield worker
