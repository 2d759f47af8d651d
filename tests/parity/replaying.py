"""Tapes compared: the core, driven anew by what was recorded, against what it did then."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from headrace.core.queue import QueueConfig, QueueCore, room
from headrace.core.tape import Frame

# All that the planner does: as events and effects, and by the names under which the core counts them.
PLANNED_EVENTS = {"Evicted", "Joined", "PlanSolved"}
PLANNED_EFFECTS = {"SendEvict", "SendResume", "SendMove", "SendLoad", "SolvePlan", "SendPrefill", "GatewayEnded"}
OPERATIONS = {
    *("evict_asked", "evict", "evict_declined", "resume", "move", "load_cold", "load_warm", "load_failed"),
    *("balance", "group_moved", "reject", "expire"),
}
SWITCHES = ("solve", "pull", "evict", "swap", "balance", "move", "early_rejection")  # of QueueConfig


def kinds(frames: Iterable[Frame]) -> tuple[Counter[str], Counter[str]]:
    """How often each event and each effect."""
    events, effects = Counter[str](), Counter[str]()
    for frame in frames:
        events[type(frame.event).__name__] += 1
        effects.update(type(effect).__name__ for effect in frame.effects)
    return events, effects


def replayed(config: QueueConfig, frames: Iterable[Frame]) -> tuple[QueueCore, list[int]]:
    """The core, driven anew, and the numbers of the frames whose effects it does not give; its invariants hold."""
    core, found = QueueCore(config), []
    for number, frame in enumerate(frames):
        if tuple(core.handle(frame.event, frame.now_s)) != frame.effects:
            found.append(number)
        core.check()
    return core, found


def differs(config: QueueConfig, frames: Iterable[Frame]) -> bool:
    """Whether a core of this configuration gives other effects, once at least."""
    core = QueueCore(config)
    return any(tuple(core.handle(frame.event, frame.now_s)) != frame.effects for frame in frames)


def without(config: QueueConfig, operation: str) -> QueueConfig:
    off: dict[str, Any] = {operation: False}
    return replace(config, **off)


def reverse_victims(monkeypatch: pytest.MonkeyPatch) -> None:
    """The core is broken on purpose: it evicts those first that it should evict last."""
    victims = room._victims
    monkeypatch.setattr(room, "_victims", lambda *of: reversed(list(victims(*of))))
