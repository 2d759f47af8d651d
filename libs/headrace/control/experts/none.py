"""No action: what a plant does when it is left alone."""

import numpy as np

from headrace.control.tasks.base import Floats


class Nothing:
    def __init__(self, actions: int) -> None:
        self._actions = actions

    def begin(self, envs: int) -> "Nothing":
        return self

    def act(self, seen: Floats) -> Floats:
        return np.zeros((len(seen), self._actions))

    def done(self, actions: Floats, costs: Floats) -> None:
        pass
