"""The governor's word in the queue manager: how fast workers are expected to be, from the moment it is heard.

Measured paces are of full speed (waiting/held.py), so that a factor counts once; of a governor that is silent for
longer than its lease nothing holds any more, and what workers measure is all that is known.
"""

from headrace.core.events import Governed
from headrace.core.governing import FULL, Governance
from headrace.core.queue.cell import Cell
from headrace.core.queue.worker import Worker


def governed(cell: Cell, event: Governed, now_s: float) -> None:
    """An older word than the last one is ignored."""
    governing = cell.governing
    if (event.epoch, event.sequence) <= governing.word:
        return
    governing.word = event.epoch, event.sequence
    governing.until_s = now_s + event.lease_s
    governing.moves = {hint.stage: hint.move for hint in event.stages}
    _hold(cell, {each.worker: each for each in event.workers}, now_s)


def follow_governor(cell: Cell, now_s: float) -> None:
    """On each tick."""
    governing = cell.governing
    if governing.until_s is not None and now_s > governing.until_s:
        governing.until_s = None
        governing.moves = {}
        cell.count("governor_lost")
        _hold(cell, {}, now_s)
    if governing.risky:
        cell.dirty = True  # who waits so that a worker is spared may have waited long enough


def _hold(cell: Cell, said: dict[str, Governance], now_s: float) -> None:
    governing = cell.governing
    governing.said = said
    governing.risky = any(each.risky for each in said.values())
    changed = [govern(cell, worker, now_s) for worker in cell.workers.values()]
    if any(changed):
        cell.planning.board = None
        cell.planning.wanted = True
        cell.dirty = True


def govern(cell: Cell, worker: Worker, now_s: float) -> bool:
    """Whether anything is new for it."""
    return worker.govern(cell.governing.of(worker.id), now_s)


def slowness(worker: Worker) -> str:
    """In words, for whoever asks why something takes so long; empty: nothing is."""
    governance = worker.governance
    words = []
    if governance.speeds != FULL:
        slowest = min(
            [
                getattr(governance.speeds, stage)
                for stage, does in (
                    ("prefill", worker.prefills),
                    ("decode", worker.decodes),
                    ("encode", worker.encodes),
                )
                if does
            ],
            default=1.0,
        )
        if slowest < 1.0:
            words.append(f"runs at {slowest:.2g} of its speed under a power cap")
    if worker.slots_usable < worker.slots:
        words.append(f"may use {worker.slots_usable} of its {worker.slots} slots")
    if governance.risky:
        words.append("is spared while others can serve in time")
    return f"{worker.id} " + ", ".join(words) if words else ""
