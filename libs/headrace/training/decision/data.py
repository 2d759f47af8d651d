"""Demonstrations as a decision transformer reads them: scaled, with returns to go, cut into windows."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from headrace.control.tasks import Episodes
from headrace.training.decision.network import Space, Window

Floats = NDArray[np.float64]
FARTHEST = 10.0  # scaled values beyond are cut: a plant that runs away must not become infinite
QUANTILES = (0.001, 0.999)  # of trained actions; beyond them a network is on its own


@dataclass(frozen=True, slots=True)
class Scale:
    """Observations to mean 0 and deviation 1, actions by the largest, returns by the median episode's cost.

    Fields [n], [n], one number each; quantiles [2, m] and returns [2, step], the least and the most that was left at
    each step, are of scaled values; target is the best episode's scaled return, always below 0.
    """

    middle: Floats
    spread: Floats
    action: float
    cost: float
    target: float
    quantiles: Floats
    returns: Floats

    @classmethod
    def of(cls, shown: Episodes) -> "Scale":
        flat = shown.seen.reshape(-1, shown.seen.shape[-1])
        largest = float(np.abs(shown.actions).max())
        cost = float(np.median(shown.total))
        returns = _to_go(shown.costs) / cost
        actions = shown.actions.reshape(-1, shown.actions.shape[-1]) / largest
        return cls(
            middle=flat.mean(axis=0),
            spread=np.maximum(flat.std(axis=0), 1e-6),
            action=largest,
            cost=cost,
            target=-float(shown.total.min()) / cost,
            quantiles=np.quantile(actions, QUANTILES, axis=0),
            returns=np.stack([returns.min(axis=0), returns.max(axis=0)]),
        )

    def left(self, left: Floats, step: int) -> Floats:
        """Cut to what was left in some episode at this step: who has paid more than was promised is told the best
        that there was, not something that nobody ever had."""
        low, high = self.returns[:, min(step, self.returns.shape[1] - 1)]
        return np.clip(left, low, high)

    def seen(self, seen: Floats) -> Floats:
        return np.clip((seen - self.middle) / self.spread, -FARTHEST, FARTHEST)


def _to_go(costs: Floats) -> Floats:
    """Returns are negative costs: from each step to the end, [episode, step]."""
    return -np.cumsum(costs[:, ::-1], axis=1)[:, ::-1]


class Demonstrations:
    """Of one task, scaled; draws windows. With `space` larger than the task's own, padded as pad() says."""

    def __init__(self, shown: Episodes, scale: Scale, space: Space | None = None) -> None:
        returns = np.clip(_to_go(shown.costs) / scale.cost, -FARTHEST, FARTHEST)
        seen, actions = scale.seen(shown.seen), shown.actions / scale.action
        own = Space(seen.shape[-1], actions.shape[-1])
        # Errors count beside the spread of a task's actions: the quiet tasks as much as the others.
        self.weight = _used(own, space or own) / max(float(actions.var()), 1e-6)
        if space is not None:
            seen, actions = pad(seen, own, space), pad_actions(actions, space)
        self._returns, self._seen, self._actions = (
            torch.tensor(x, dtype=torch.float32) for x in (returns, seen, actions)
        )

    def windows(self, rng: np.random.Generator, rows: int, steps: int) -> Window:
        """Each ends at any step of any episode, all alike."""
        episodes, length = self._returns.shape
        which = torch.from_numpy(rng.integers(episodes, size=rows))
        times = torch.from_numpy(rng.integers(length, size=rows))[:, None] + torch.arange(1 - steps, 1)[None]
        real, times = times >= 0, times.clamp(min=0)
        at = which[:, None], times
        return Window(self._returns[at], self._seen[at], self._actions[at], times, real)


def pad(seen: Floats, own: Space, space: Space) -> Floats:
    """[..., n] -> [..., space.observations]: values, zeros, and flags of which values and actions there are.

    All tasks then share one set of embedders, and a task that was never seen has some too.
    """
    width = (space.observations - space.actions) // 2
    flags = np.concatenate([np.arange(width) < own.observations, np.arange(space.actions) < own.actions])
    zeros = np.zeros((*seen.shape[:-1], width - own.observations))
    return np.concatenate([seen, zeros, np.broadcast_to(flags, (*seen.shape[:-1], len(flags)))], axis=-1)


def pad_actions(actions: Floats, space: Space) -> Floats:
    return np.concatenate([actions, np.zeros((*actions.shape[:-1], space.actions - actions.shape[-1]))], axis=-1)


def padded(observations: int, actions: int) -> Space:
    """The space that holds all with at most so many."""
    return Space(2 * observations + actions, actions)


def _used(own: Space, space: Space) -> torch.Tensor:
    """Which actions there are, [m] of 0 and 1."""
    return (torch.arange(space.actions) < own.actions).float()


def retarget(scale: Scale, times: float) -> Scale:
    """The same, asking for a return so many times the best one's cost."""
    return replace(scale, target=scale.target * times)
