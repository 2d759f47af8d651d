"""Rows as arrays: encoder states, numbers beside them, lengths; and batches of like length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace.core.lengths import Features
from headrace.predictor.encoder import WIDTH, Encoder
from headrace.predictor.numbers import model_index, numbers
from headrace.predictor.reading import Reader
from headrace.training.lengths_rows import Row

_ENCODED_AT_ONCE = 16
_POOL_BATCHES = 8  # batches are cut from pools of so many, sorted by length: little padding, yet random


@dataclass(frozen=True, slots=True)
class Batch:
    states: Tensor  # [n, T, WIDTH]
    mask: Tensor  # [n, T]
    numbers: Tensor  # [n, NUMBERS]
    model: Tensor  # [n]
    lengths: Tensor  # [n] natural logarithm of tokens
    stopped: Tensor  # [n]
    weights: Tensor  # [n]


@dataclass(frozen=True, slots=True)
class Table:
    rows: list[Row]
    states: list[NDArray[np.float16]]  # by row, [tokens, WIDTH]; rows of one prompt share theirs
    numbers: NDArray[np.float32]
    models: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, at: Sequence[int] | NDArray[np.int64], weights: NDArray[np.float32] | None = None) -> Batch:
        longest = max(len(self.states[i]) for i in at)
        states, mask = np.zeros((len(at), longest, WIDTH), np.float32), np.zeros((len(at), longest), np.float32)
        for row, i in enumerate(at):
            states[row, : len(self.states[i])], mask[row, : len(self.states[i])] = self.states[i], 1
        rows = [self.rows[i] for i in at]
        return Batch(
            torch.from_numpy(states),
            torch.from_numpy(mask),
            torch.from_numpy(self.numbers[at]),
            torch.from_numpy(self.models[at]),
            torch.log(torch.tensor([float(row.output_tokens) for row in rows])),
            torch.tensor([row.stopped for row in rows]),
            torch.ones(len(at)) if weights is None else torch.from_numpy(weights[at]),
        )

    def shuffled(self, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """Each row once, in batches of like length and random order."""
        order = rng.permutation(len(self))
        cut = []
        for start in range(0, len(order), size * _POOL_BATCHES):
            pool = sorted(order[start : start + size * _POOL_BATCHES], key=lambda i: len(self.states[i]))
            cut += [np.array(pool[at : at + size]) for at in range(0, len(pool), size)]
        yield from (cut[i] for i in rng.permutation(len(cut)))


def model_names(rows: Sequence[Row]) -> dict[str, int]:
    """Every model that answered, by name; 0 is kept for all others."""
    return {name: i for i, name in enumerate(sorted({row.model for row in rows if row.model}), 1)}


def tabled(rows: Sequence[Row], models: dict[str, int], encoder: Encoder, reader: Reader) -> Table:
    states = _encoded(sorted({row.prompt for row in rows}), encoder, reader)
    beside = [
        numbers(row.prompt, Features(row.prompt_tokens, 0, parts=row.parts, media_tokens=row.media_tokens))
        for row in rows
    ]
    return Table(
        list(rows),
        [states[row.prompt] for row in rows],
        np.array(beside, np.float32),
        np.array([model_index(row.model, models) for row in rows], np.int64),
    )


def _encoded(prompts: Sequence[str], encoder: Encoder, reader: Reader) -> dict[str, NDArray[np.float16]]:
    ids = reader.read(prompts)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    found = {}
    for start in range(0, len(order), _ENCODED_AT_ONCE):
        chosen = order[start : start + _ENCODED_AT_ONCE]
        states, _ = encoder.states([ids[i] for i in chosen])
        for row, i in enumerate(chosen):
            found[prompts[i]] = states[row, : len(ids[i])].astype(np.float16)
    return found
