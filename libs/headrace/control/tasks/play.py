"""Plays a controller on a task, all seeds at once, and keeps what was seen, done and paid."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.control.tasks.base import Floats, Task


class Controller(Protocol):
    """One for all episodes of a run; made anew for the next."""

    def act(self, seen: Floats) -> Floats:
        """Actions [env, m] for observations [env, n]; called once a step."""
        ...

    def done(self, actions: Floats, costs: Floats) -> None:
        """What was done in the end, clipped or somebody else's, and what the step cost [env]."""
        ...


@dataclass(frozen=True, slots=True)
class Episodes:
    """seen [env, step, n], actions [env, step, m], costs and violated [env, step]."""

    seen: Floats
    actions: Floats
    costs: Floats
    violated: NDArray[np.bool_]

    @property
    def total(self) -> Floats:
        """Of each episode."""
        found: Floats = self.costs.sum(axis=1)
        return found


def play(task: Task, controller: Controller, seeds: Sequence[int]) -> Episodes:
    world, (low, high) = task.world(seeds), task.action_range
    seen, kept = world.first(), []
    for _ in range(task.steps):
        actions = np.clip(controller.act(seen), low, high)
        stepped = world.step(actions)
        controller.done(actions, stepped.cost)
        kept.append((seen, actions, stepped.cost, stepped.violated))
        seen = stepped.seen
    return Episodes(*(np.stack(column, axis=1) for column in zip(*kept, strict=True)))
