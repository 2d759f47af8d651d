"""Trains a decision transformer on several tasks in turn: AdamW, a warm-up, mean squared error of scaled actions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from headrace.training.decision.bodies import Body
from headrace.training.decision.data import Demonstrations
from headrace.training.decision.network import DecisionNet, Space, Window


@dataclass(frozen=True, slots=True)
class Recipe:
    """times_most: of the longest episode."""

    steps: int
    rate: float
    context: int = 20  # LaMo's (arXiv:2310.20587)
    batch: int = 4  # windows, of one task a step; LaMo's 64 leave too few steps here
    warm_up: int = 50
    decay: float = 1e-4
    dropout: float = 0.0  # LaMo has 0.1: noise on what an exact gain is to be read from
    clip: float = 1.0  # of the gradient's norm
    times_most: int = 100
    seed: int = 0


def train(
    make: Callable[[int], Body], spaces: Mapping[str, Space], shown: Mapping[str, Demonstrations], recipe: Recipe
) -> DecisionNet:
    """shown: by task; a task's space is the one of its name, or the only one there is.

    The same recipe gives the same weights, on one thread of one kind of machine.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        net = DecisionNet(make(recipe.seed), spaces, recipe.times_most, recipe.dropout)
        net.train()
        optimizer = torch.optim.AdamW(net.trained(), lr=recipe.rate, weight_decay=recipe.decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: pace(step, recipe))
        rng, names = np.random.default_rng(recipe.seed), list(shown)
        for step in range(recipe.steps):
            name = names[step % len(names)]
            window = shown[name].windows(rng, recipe.batch, recipe.context)
            loss = loss_of(net, space_of(name, spaces), window, shown[name].weight)
            optimizer.zero_grad(set_to_none=True)  # embedders of other tasks stand still
            loss.backward()
            nn.utils.clip_grad_norm_(net.trained(), recipe.clip)
            optimizer.step()
            schedule.step()
    net.eval()
    return net


def pace(step: int, recipe: Recipe) -> float:
    """Of the learning rate: up in the warm-up, then down to a tenth by a cosine."""
    if step < recipe.warm_up:
        return (step + 1) / recipe.warm_up
    gone = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return 0.1 + 0.45 * (1.0 + float(np.cos(np.pi * gone)))


def loss_of(net: DecisionNet, space: str, window: Window, weight: Tensor) -> Tensor:
    """Over the steps that are real; weight [m], 0 for actions that there are not."""
    off = (net.predict(space, window) - window.actions) ** 2 * weight
    real = window.real[..., None]
    found: Tensor = (off * real).sum() / (real.sum() * (weight > 0).sum())
    return found


def space_of(task: str, spaces: Mapping[str, Space]) -> str:
    return task if task in spaces else next(iter(spaces))


def held_out(net: DecisionNet, space: str, shown: Demonstrations, context: int, seed: int, rows: int = 128) -> float:
    """Loss on demonstrations that it was not trained on."""
    window = shown.windows(np.random.default_rng(seed), rows, context)
    with torch.no_grad():
        return float(loss_of(net, space, window, shown.weight))
