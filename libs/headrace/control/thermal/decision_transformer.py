"""Learnt thermal controllers: a network that has seen others control randomised plants, with a safety filter or not.

After Decision Transformer (arXiv:2106.01345) and its use for control (arXiv:2404.02407): the last minute of
observations and actions and a wanted return in, the next action out. Not among CONTROLLERS: alone it promises nothing.
"""

import numpy as np

from headrace.control.constants import GpuKind
from headrace.control.thermal.base import Floats, Observed, bounded
from headrace.control.thermal.context import Context
from headrace.control.thermal.kalman_budget import KalmanBudget
from headrace.control.thermal.network import Network
from headrace.control.thermal.safety import filtered


class DecisionTransformer:
    """Does what the network says: for benches."""

    def __init__(self, kind: GpuKind, gpus: int, network: Network) -> None:
        self._kind = kind
        self._context = Context(kind, gpus)
        self._network = network

    def act(self, seen: Observed) -> Floats:
        """Raises Unavailable."""
        said = self.say(seen)
        return bounded(self._kind, np.where(np.isfinite(said), said, self._kind.speed_least))

    def say(self, seen: Observed) -> Floats:
        """Not bounded, perhaps nan. Raises Unavailable."""
        self._context.add(seen)
        return self._network.speeds(*self._context.steps())


class Filtered:
    """The same behind the Kalman budget."""

    def __init__(self, kind: GpuKind, gpus: int, network: Network) -> None:
        self._learnt = DecisionTransformer(kind, gpus, network)
        self._safe = KalmanBudget(kind, gpus)
        self._trained = network.trained

    def act(self, seen: Observed) -> Floats:
        """Raises Unavailable."""
        safe = self._safe.act(seen)
        speed, _ = filtered(self._learnt.say(seen), safe, self._trained.least, self._trained.most)
        return speed
