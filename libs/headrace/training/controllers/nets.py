"""The three networks: a decision transformer from scratch, one around the packaged language model, a distilled one.

All take a window's returns to go, observations and actions as they are (normalising is part of the network) and say
the speed of the next second.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headrace.control.thermal.context import FEATURES, STEPS
from headrace.training.decision import bodies
from headrace.training.decision.network import TOKENS, DecisionNet, Space, Window

SPACE = "gpu"
# Of SmolLM2's 30: one thread runs two of them over eight contexts of sixty tokens in a third of the 100 ms that it may.
LANGUAGE_LAYERS = 2
DISTILLED_WIDTH = 96
RETURN_LEAST = -10.0  # in medians: what is worse is equally bad


@dataclass(frozen=True, slots=True)
class Scales:
    """Of the demonstrations."""

    mean: tuple[float, ...]  # of each feature
    deviation: tuple[float, ...]
    returns: float  # the median's absolute value
    said: tuple[float, float]  # mean and deviation of the speeds: most are 1, and percents matter


class Normalised(nn.Module):
    def __init__(self, scales: Scales) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(scales.mean))
        self.register_buffer("deviation", torch.tensor(scales.deviation))
        self.register_buffer("scale", torch.tensor(scales.returns))
        self.register_buffer("said", torch.tensor(scales.said))

    def seen(self, observations: Tensor) -> Tensor:
        found: Tensor = (observations - self.mean) / self.deviation
        return found

    def asked(self, returns: Tensor) -> Tensor:
        found: Tensor = (returns / self.scale).clamp(RETURN_LEAST, -RETURN_LEAST)
        return found

    def done(self, actions: Tensor) -> Tensor:
        found: Tensor = (actions - self.said[0]) / self.said[1]
        return found

    def speed(self, out: Tensor) -> Tensor:
        found: Tensor = self.said[0] + self.said[1] * out
        return found


class Transformer(nn.Module):
    """A decision transformer of this one space."""

    def __init__(self, body: bodies.Body, scales: Scales, seed: int) -> None:
        super().__init__()
        self.normal = Normalised(scales)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = DecisionNet(body, {SPACE: Space(len(FEATURES), 1)}, STEPS)
        for each in self.modules():  # there is more data than steps, and a speed is wanted to a percent
            if isinstance(each, nn.Dropout):
                each.p = 0.0

    def forward(self, returns: Tensor, observations: Tensor, actions: Tensor) -> Tensor:
        """[rows, STEPS] of speeds: at each step the next."""
        return self.normal.speed(self.net.predict(SPACE, self.window(returns, observations, actions))[..., 0])

    def window(self, returns: Tensor, observations: Tensor, actions: Tensor) -> Window:
        """Times are of the window: a governor's hour has no beginning."""
        times, real = torch.arange(STEPS)[None], torch.ones_like(returns, dtype=torch.bool)
        normal = self.normal
        return Window(normal.asked(returns), normal.seen(observations), normal.done(actions), times, real)


class Distilled(nn.Module):
    """Two hidden layers over the window; learns what a transformer says at the target return, which it does not see."""

    def __init__(self, scales: Scales, seed: int) -> None:
        super().__init__()
        self.normal = Normalised(scales)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Linear(STEPS * (len(FEATURES) + 1), DISTILLED_WIDTH),
                nn.GELU(),
                nn.Linear(DISTILLED_WIDTH, DISTILLED_WIDTH),
                nn.GELU(),
                nn.Linear(DISTILLED_WIDTH, 1),
            )

    def forward(self, returns: Tensor, observations: Tensor, actions: Tensor) -> Tensor:
        """[rows]: the last step's alone."""
        seen = torch.cat([self.normal.seen(observations), self.normal.done(actions)], dim=2).flatten(1)
        return self.normal.speed(self.layers(seen)[:, 0])


class Served(nn.Module):
    """A trained transformer as it is exported: adapters merged, float32, attention's mask a constant."""

    def __init__(self, trained: Transformer) -> None:
        super().__init__()
        self.trained = trained
        model = trained.net.body.model.float()  # before it is merged: adapters are finer than bfloat16
        self.model = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
        tokens = TOKENS * STEPS
        self.register_buffer("mask", torch.full((tokens, tokens), -1e9).triu(1)[None, None])
        self.register_buffer("positions", torch.arange(tokens)[None])

    def forward(self, returns: Tensor, observations: Tensor, actions: Tensor) -> Tensor:
        """[rows]: the last step's alone."""
        net = self.trained.net
        tokens = net.tokens(SPACE, self.trained.window(returns, observations, actions))
        hidden = self.model(
            inputs_embeds=tokens, attention_mask=self.mask, position_ids=self.positions, use_cache=False
        ).last_hidden_state
        return self.trained.normal.speed(net.heads[SPACE](hidden[:, -2])[:, 0])  # where the last observation is


BODIES: dict[str, Callable[[int], bodies.Body]] = {
    "scratch": bodies.scratch,
    "language": lambda seed: bodies.language(seed, LANGUAGE_LAYERS),
}
