"""Training of the networks: the mean squared error of the speed, over windows that end where heat binds and elsewhere.

AdamW with a warm-up, after LaMo (arXiv:2310.20587); the same seed makes the same weights on the same machine.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from headrace.control.thermal.context import Singles
from headrace.training.controllers.demonstrations import Demonstrations, Windows
from headrace.training.controllers.nets import Distilled, Scales, Transformer

Say = Callable[[str], None]
HELD_OUT = 0.1  # of the episodes, the last of each demonstrator: nothing is learnt from them


@dataclass(frozen=True, slots=True)
class Recipe:
    """steps x batch windows: together a quarter of an hour of one core; fixed before the first evaluation."""

    steps: int
    batch: int
    rate: float
    warm_up: int = 100
    weight_decay: float = 1e-4
    hot: float = 0.6  # of a batch's windows end near a second in which a demonstrator slows down


SCRATCH = Recipe(steps=4_000, batch=32, rate=1e-3)
LANGUAGE = Recipe(steps=700, batch=16, rate=1e-3)
DISTILLED = Recipe(steps=6_000, batch=512, rate=2e-3)
RECIPES = {"scratch": SCRATCH, "language": LANGUAGE, "distilled": DISTILLED}


class Sampler:
    """Windows of the demonstrations, for learning or held out."""

    def __init__(self, of: Demonstrations, recipe: Recipe, seed: int, *, held_out: bool) -> None:
        self._of, self._recipe, self._rng = of, recipe, np.random.default_rng(seed)
        kept = _held_out(of.who)
        slow = (of.said < 0.99) & (kept == held_out)[:, None]
        self._hot = np.argwhere(slow)
        self._any = np.flatnonzero(kept == held_out)

    def batch(self, rows: int) -> Windows:
        hot = self._hot[self._rng.integers(0, len(self._hot), int(rows * self._recipe.hot))]
        rest = rows - len(hot)
        episodes = np.concatenate([hot[:, 0], self._rng.choice(self._any, rest)])
        length = self._of.said.shape[1]
        # Around a hot second, not at it: before and after are to be known as well.
        near = np.clip(hot[:, 1] + self._rng.integers(-30, 31, len(hot)), 0, length - 1)
        return self._of.windows(episodes, np.concatenate([near, self._rng.integers(0, length, rest)]))


def _held_out(who: tuple[str, ...]) -> np.ndarray:
    found = np.zeros(len(who), dtype=np.bool_)
    for name in set(who):
        at = np.flatnonzero(np.array(who) == name)
        found[at[len(at) - max(1, int(HELD_OUT * len(at))) :]] = True
    return found


def scales(of: Demonstrations) -> Scales:
    flat = of.seconds.reshape(-1, of.seconds.shape[-1]).astype(np.float64)
    median = float(np.abs(np.median(of.returns)))
    said = of.said.astype(np.float64)
    return Scales(
        tuple(flat.mean(axis=0).tolist()),
        tuple((flat.std(axis=0) + 1e-6).tolist()),
        median,
        (float(said.mean()), float(said.std())),
    )


def tensors(windows: Windows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    columns = (windows.returns, windows.observations, windows.actions, windows.said)
    first, second, third, fourth = (torch.from_numpy(np.ascontiguousarray(column)) for column in columns)
    return first, second, third, fourth


def fit(net: Transformer, of: Demonstrations, recipe: Recipe, seed: int, say: Say) -> float:
    """The root mean square error of the last step's speed on held-out episodes."""
    learn, test = (Sampler(of, recipe, seed, held_out=held_out) for held_out in (False, True))

    def loss() -> Tensor:
        returns, observations, actions, said = tensors(learn.batch(recipe.batch))
        return _off(net, net(returns, observations, actions), said)

    _descend(net, loss, recipe, seed, say)
    windows = test.batch(1_024)
    off = spoken(net, windows) - windows.said[:, -1]
    return float(np.sqrt(np.mean(off**2)))


def distil(net: Distilled, teacher: Transformer, of: Demonstrations, target: float, seed: int, say: Say) -> float:
    """From what the teacher says at the target return; the root mean square difference on held-out episodes."""
    recipe = DISTILLED
    learn, test = (Sampler(of, recipe, seed, held_out=held_out) for held_out in (False, True))
    pool = [_taught(teacher, learn.batch(1_024), target) for _ in range(POOL)]
    say(f"  the teacher has spoken on {POOL * 1_024} windows")
    columns = [torch.cat(column) for column in zip(*pool, strict=True)]
    random = torch.Generator().manual_seed(seed)

    def loss() -> Tensor:
        at = torch.randint(0, len(columns[0]), (recipe.batch,), generator=random)
        returns, observations, actions, said = (column[at] for column in columns)
        return _off(net, net(returns, observations, actions), said)

    _descend(net, loss, recipe, seed, say)
    windows = _taught(teacher, test.batch(1_024), target)
    with torch.no_grad():
        off = net(*windows[:3]) - windows[3]
    return float(off.square().mean().sqrt())


POOL = 60  # times 1,024 windows: what half a minute of the teacher is worth


def _taught(teacher: Transformer, windows: Windows, target: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    asked = Windows(np.full_like(windows.returns, target), windows.observations, windows.actions, windows.said)
    returns, observations, actions, _ = tensors(asked)
    return returns, observations, actions, torch.from_numpy(spoken(teacher, asked))


def spoken(net: Transformer, windows: Windows) -> Singles:
    """The last step's speed, [row]."""
    net.eval()
    returns, observations, actions, _ = tensors(windows)
    with torch.no_grad():
        parts = [
            net(returns[at : at + 128], observations[at : at + 128], actions[at : at + 128])[:, -1]
            for at in range(0, len(returns), 128)
        ]
    found: Singles = torch.cat(parts).numpy()
    return found


def _off(net: Transformer | Distilled, speed: Tensor, said: Tensor) -> Tensor:
    """In deviations of the speed."""
    found: Tensor = ((speed - said) / net.normal.said[1]).square().mean()
    return found


def _descend(net: nn.Module, loss: Callable[[], Tensor], recipe: Recipe, seed: int, say: Say) -> None:
    torch.manual_seed(seed)  # of dropout
    net.train()
    trained = [each for each in net.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=recipe.rate, weight_decay=recipe.weight_decay)
    total = recipe.steps

    def rate(step: int) -> float:
        rest = (step - recipe.warm_up) / max(1, total - recipe.warm_up)
        return min((step + 1) / recipe.warm_up, 0.5 * (1.0 + float(np.cos(np.pi * max(0.0, rest)))))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    lately = 0.0
    for step in range(total):
        optimiser.zero_grad()
        found = loss()
        found.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        schedule.step()
        lately = 0.99 * lately + 0.01 * found.item()
        if step % 200 == 199:
            say(f"  step {step + 1}: loss {lately / (1.0 - 0.99 ** (step + 1)):.3e}")
    net.eval()
