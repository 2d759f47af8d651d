"""Plays a decision transformer: the last K steps in, the target return that is left, an action out.

R_1 is the best return in the data, and after each step R' = R - r (Chen et al. 2021, Algorithm 1). `Guarded` hands over
to the expert where the network leaves what it was trained on.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from headrace.control.tasks import Controller
from headrace.training.decision.data import Floats, Scale, pad, pad_actions
from headrace.training.decision.network import DecisionNet, Space, Window


@dataclass(frozen=True, slots=True)
class Policy:
    """A trained network for one task; own: the task's sizes, smaller than those of a padded space."""

    net: DecisionNet
    space: str
    own: Space
    scale: Scale
    context: int
    padded: Space | None = None

    def begin(self, envs: int) -> "Rolled":
        return Rolled(self, envs)


class Rolled:
    def __init__(self, policy: Policy, envs: int) -> None:
        self.policy, k = policy, policy.context
        space = policy.padded or policy.own
        self._returns = np.zeros((envs, k))
        self._seen = np.zeros((envs, k, space.observations))
        self._actions = np.zeros((envs, k, space.actions))
        self._now = 0
        self.left = np.full(envs, policy.scale.target)

    def act(self, seen: Floats) -> Floats:
        scaled = self.policy.scale.seen(seen)
        if self.policy.padded is not None:
            scaled = pad(scaled, self.policy.own, self.policy.padded)
        for kept, new in ((self._returns, self.policy.scale.left(self.left, self._now)), (self._seen, scaled)):
            kept[:, :-1], kept[:, -1] = kept[:, 1:], new
        self._actions[:, :-1], self._actions[:, -1] = self._actions[:, 1:], 0.0
        with torch.inference_mode():
            found = self.policy.net.last(self.policy.space, self._window()).numpy()
        actions: Floats = found[:, : self.policy.own.actions].astype(float) * self.policy.scale.action
        return actions

    def done(self, actions: Floats, costs: Floats) -> None:
        scaled = actions / self.policy.scale.action
        self._actions[:, -1] = scaled if self.policy.padded is None else pad_actions(scaled, self.policy.padded)
        self.left = self.left + costs / self.policy.scale.cost
        self._now += 1

    def _window(self) -> Window:
        """Only what is real: nothing is padded where all episodes are equally long."""
        k, envs = min(self.policy.context, self._now + 1), len(self.left)
        times = torch.arange(self._now - k + 1, self._now + 1).expand(envs, -1)
        kept = self._returns, self._seen, self._actions
        returns, seen, actions = (torch.tensor(each[:, -k:], dtype=torch.float32) for each in kept)
        return Window(returns, seen, actions, times, torch.ones((envs, k), dtype=torch.bool))


@dataclass(slots=True)
class Guarded:
    """The expert acts where an action is outside the trained quantiles, or the return outside the trained range."""

    rolled: Rolled
    expert: Controller
    asked: int = field(default=0, init=False)  # actions that were asked for, and those of the expert
    fallbacks: int = field(default=0, init=False)

    def act(self, seen: Floats) -> Floats:
        own, safe = self.rolled.act(seen), self.expert.act(seen)
        scale = self.rolled.policy.scale
        scaled, (low, high) = own / scale.action, scale.quantiles
        worst, best = scale.returns.min(), scale.returns.max()
        outside = ((scaled < low) | (scaled > high)).any(axis=1)
        outside |= (self.rolled.left < worst) | (self.rolled.left > best)
        self.asked += len(own)
        self.fallbacks += int(outside.sum())
        return np.where(outside[:, None], safe, own)

    def done(self, actions: Floats, costs: Floats) -> None:
        self.rolled.done(actions, costs)
        self.expert.done(actions, costs)
