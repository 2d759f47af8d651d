"""A decision transformer (Chen et al. 2021, arXiv:2106.01345): three tokens a step around any causal body.

A step is its return to go, its observation, its action, in this order; the action is read where the observation is.
Every space (sizes of observations and actions) has embedders and a head of its own; all share one body.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headrace.training.decision.bodies import Body

TOKENS = 3  # a step


@dataclass(frozen=True, slots=True)
class Space:
    observations: int
    actions: int


@dataclass(frozen=True, slots=True)
class Window:
    """The last steps of some episodes, oldest first; what is not `real` stands at the front and is not read.

    returns float32 [rows, steps], observations [rows, steps, n], actions [rows, steps, m], times int64 [rows, steps]
    (of the episode), real bool [rows, steps]. The last action may be anything: it cannot be seen by its own step.
    """

    returns: Tensor
    observations: Tensor
    actions: Tensor
    times: Tensor
    real: Tensor


class DecisionNet(nn.Module):
    """predict(space, window) -> actions float32 [rows, steps, m].

    Args:
        body: what attends; see bodies.py.
        spaces: by name.
        times_most: steps of the longest episode; later ones share the last time embedding.
    """

    def __init__(self, body: Body, spaces: Mapping[str, Space], times_most: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.body = body
        self.times_most = times_most
        self.time = nn.Embedding(times_most, body.width)
        nn.init.normal_(self.time.weight, std=0.02)
        self.returns = nn.ModuleDict({name: nn.Linear(1, body.width) for name in spaces})
        self.observations = nn.ModuleDict({name: nn.Linear(s.observations, body.width) for name, s in spaces.items()})
        self.actions = nn.ModuleDict({name: nn.Linear(s.actions, body.width) for name, s in spaces.items()})
        self.norm = nn.LayerNorm(body.width)
        # Tokens enter as large as the body's own token embeddings are.
        nn.init.constant_(self.norm.weight, body.scale)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleDict({name: nn.Linear(body.width, s.actions) for name, s in spaces.items()})

    def tokens(self, space: str, window: Window) -> Tensor:
        """float32 [rows, 3 x steps, width]."""
        made = (
            self.returns[space](window.returns[..., None]),
            self.observations[space](window.observations),
            self.actions[space](window.actions),
        )
        times = self.time(window.times.clamp(0, self.times_most - 1))
        return self.norm(torch.stack([each + times for each in made], dim=2).flatten(1, 2))

    def predict(self, space: str, window: Window) -> Tensor:
        seen = window.real.repeat_interleave(TOKENS, dim=1)
        hidden = self.body(self.dropout(self.tokens(space, window)), seen)
        out: Tensor = self.heads[space](hidden[:, 1::TOKENS])
        return out

    def last(self, space: str, window: Window) -> Tensor:
        """The next action alone, [rows, m]."""
        return self.predict(space, window)[:, -1]

    def trained(self) -> Iterable[nn.Parameter]:
        return (each for each in self.parameters() if each.requires_grad)

    def count_trained(self) -> int:
        return sum(each.numel() for each in self.trained())
