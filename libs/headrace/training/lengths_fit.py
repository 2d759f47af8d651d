"""Trains the encoder's low-rank corrections and several heads on them together."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from headrace.predictor.numbers import UNKNOWN_MODEL
from headrace.training.lengths_encoder import Upper
from headrace.training.lengths_net import Ensemble, Heads, loss
from headrace.training.lengths_rows import Row, medians
from headrace.training.lengths_table import Batch, Table

Log = Callable[..., None]
_ANSWERS_PER_PROMPT = 3  # of the many models that answered a prompt, beside their median
_UNKNOWN_SHARE = 0.15  # rows whose model is hidden, so that the heads can do without


@dataclass(frozen=True, slots=True)
class Recipe:
    members: int = 3  # heads whose mean counts
    epochs: int = 6
    batch: int = 32
    rate: float = 2e-3  # of the heads
    rank_rate: float = 8e-4  # of the corrections
    rank: int = 12
    lower: int = 2  # layers of the encoder that stay as they are
    head_tokens: int = 64  # of a prompt in training; serving reads 128 and 384
    tail_tokens: int = 64
    decay: float = 0.02
    dropout: float = 0.3
    balance: float = 0.75  # a source of n rows weighs n ** balance


def training_rows(rows: Sequence[Row], seed: int) -> list[Row]:
    """For each prompt of a source: its answer; of several models' answers a few, and their median."""
    answers: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        answers[row.source, row.prompt].append(row)
    rng, chosen = Random(seed), list[Row]()
    for same in answers.values():
        several = len({row.model for row in same}) > 1
        chosen += rng.sample(same, min(len(same), _ANSWERS_PER_PROMPT)) + medians(same) if several else same
    return chosen


def weights_of(table: Table, balance: float) -> NDArray[np.float32]:
    sizes = Counter(row.source for row in table.rows)
    weights = np.array([sizes[row.source] ** (balance - 1.0) for row in table.rows])
    return np.asarray(weights / weights.mean(), np.float32)


def fit(train: Table, encoder: Path, models: int, recipe: Recipe, seed: int, log: Log) -> tuple[Upper, Ensemble]:
    """Corrections and heads; the table's states are those behind the lower layers."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    upper = Upper(encoder, recipe.lower, recipe.rank)
    members = [Heads(models, recipe.dropout) for _ in range(recipe.members)]
    for heads in members:
        heads.scale(torch.from_numpy(train.numbers))
    ensemble = Ensemble(members)
    learning = [list(ensemble.parameters()), list(upper.parameters())]
    optimiser = torch.optim.AdamW([{"params": some} for some in learning], weight_decay=recipe.decay)
    rates = [recipe.rate, recipe.rank_rate]
    steps = recipe.epochs * (len(train) // recipe.batch + 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=steps, pct_start=0.1)
    weights = weights_of(train, recipe.balance)
    for epoch in range(recipe.epochs):
        losses = []
        for at in train.shuffled(recipe.batch, rng):
            value = _loss(upper, members, train.batch(at, weights), rng)
            optimiser.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_([parameter for some in learning for parameter in some], 1.0)
            optimiser.step()
            schedule.step()
            losses.append(float(value.detach()))
        log("epoch", epoch=epoch + 1, of=recipe.epochs, loss=round(float(np.mean(losses)), 4))
    upper.eval()
    ensemble.eval()
    return upper, ensemble


def _loss(upper: Upper, members: Sequence[Heads], batch: Batch, rng: np.random.Generator) -> torch.Tensor:
    hidden = torch.from_numpy(rng.random(len(batch.model)) < _UNKNOWN_SHARE)
    model = torch.where(hidden, torch.full_like(batch.model, UNKNOWN_MODEL), batch.model)
    states = upper(batch.states, batch.mask)
    outs = [heads(states, batch.mask, batch.numbers, model) for heads in members]
    return torch.stack([loss(out, batch.lengths, batch.stopped, batch.weights) for out in outs]).mean()
