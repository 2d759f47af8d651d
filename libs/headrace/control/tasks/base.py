"""The interface of control tasks: worlds that take actions and tell observations and costs, all seeds in one array.

A world shows an observation, takes an action for it, and answers with the next observation and what the step cost.
Nobody is told the state.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Stepped:
    """After an action: observation [env, n], cost of the step [env], and whether it broke the task's limit [env]."""

    seen: Floats
    cost: Floats
    violated: NDArray[np.bool_]


class World(Protocol):
    """Some episodes side by side."""

    def first(self) -> Floats:
        """The observation before the first action, [env, n]."""
        ...

    def step(self, actions: Floats) -> Stepped:
        """actions [env, m], within the task's range."""
        ...


class Task(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def observations(self) -> int: ...
    @property
    def actions(self) -> int: ...
    @property
    def steps(self) -> int: ...

    @property
    def action_range(self) -> tuple[float, float]: ...

    def world(self, seeds: Sequence[int]) -> World: ...
