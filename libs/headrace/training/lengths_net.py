"""The heads of the length predictor: attention over the encoder's states, cues and the model beside them, six outputs.

Quantiles are what serving uses; regression, 3 and 5 classes and the ordinal one are SSJF's variants (arXiv 2404.08509),
kept as figures, and as tasks that share the trunk.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from headrace.core.lengths import LEVELS
from headrace.predictor.encoder import WIDTH
from headrace.predictor.numbers import NUMBERS

# Class borders of the released code, single round: p25, p50, p75 and p99 of Vicuna-13B's answers.
CUTS3, CUTS5 = (141, 503), (42, 141, 294, 503)
_QUERIES, _VALUE, _SIDE, _HIDDEN, _MODEL = 8, 64, 64, 128, 16
_CENTRE = 4.5  # log tokens: where all outputs start
_CLIP = 4.0  # standard deviations: a cue far outside of training says no more than that


class Out(NamedTuple):
    quantiles: Tensor  # [n, LEVELS] natural logarithm of tokens, never falling
    regression: Tensor  # [n] natural logarithm of tokens
    classes3: Tensor  # [n, 3] logits
    classes5: Tensor  # [n, 5] logits
    ordinal: Tensor  # [n, 4] logits of lying above each of CUTS5


class Heads(nn.Module):
    """states [n, T, WIDTH], mask [n, T], numbers [n, NUMBERS], model [n] -> Out."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, models: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(len(NUMBERS)))
        self.register_buffer("deviation", torch.ones(len(NUMBERS)))
        self.query, self.value = nn.Linear(WIDTH, _QUERIES), nn.Linear(WIDTH, _VALUE)
        self.average, self.first = nn.Linear(WIDTH, 2 * _SIDE), nn.Linear(WIDTH, _SIDE)
        self.cues = nn.Linear(len(NUMBERS), _SIDE)
        self.model = nn.Embedding(models, _MODEL)
        self.trunk = nn.Linear(_QUERIES * _VALUE + 4 * _SIDE + _MODEL, _HIDDEN)
        self.second = nn.Linear(_HIDDEN, _HIDDEN)
        self.quantiles, self.regression = nn.Linear(_HIDDEN, len(LEVELS)), nn.Linear(_HIDDEN, 1)
        self.classes3, self.classes5 = nn.Linear(_HIDDEN, 3), nn.Linear(_HIDDEN, 5)
        self.ordinal = nn.Linear(_HIDDEN, 1)
        self.borders = nn.Parameter(torch.tensor([-1.5, 0.0, 1.0, 2.0]))
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.model.weight)

    def forward(self, states: Tensor, mask: Tensor, numbers: Tensor, model: Tensor) -> Out:
        z = torch.cat([self._pooled(states, mask), self._beside(numbers), self.model(model)], 1)
        z = self.dropout(functional.relu(self.trunk(self.dropout(z))))
        z = self.dropout(functional.relu(self.second(z)))
        raw = self.quantiles(z)
        lowest, steps = raw[:, :1] + _CENTRE - 2.0, functional.softplus(raw[:, 1:] - 1.0)
        return Out(
            torch.cat([lowest, lowest + torch.cumsum(steps, 1)], 1),
            self.regression(z)[:, 0] + _CENTRE,
            self.classes3(z),
            self.classes5(z),
            self.ordinal(z) - self.borders,
        )

    def _pooled(self, states: Tensor, mask: Tensor) -> Tensor:
        """What several learnt queries attend to, the average (of length 8), and the first token's state."""
        scores = self.query(states) + (mask[..., None] - 1.0) * 1e4
        attended = torch.matmul(scores.softmax(1).transpose(1, 2), functional.gelu(self.value(states)))
        average = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        average = 8.0 * average / average.norm(dim=1, keepdim=True)
        sides = [functional.gelu(self.average(average)), functional.gelu(self.first(states[:, 0]))]
        return torch.cat([attended.flatten(1), *sides], 1)

    def _beside(self, numbers: Tensor) -> Tensor:
        scaled = ((numbers - self.mean) / self.deviation).clamp(-_CLIP, _CLIP)
        return functional.gelu(self.cues(scaled))

    def scale(self, numbers: Tensor) -> None:
        """Take mean and deviation of the training rows' numbers [n, NUMBERS]."""
        self.mean.copy_(numbers.mean(0))
        self.deviation.copy_(numbers.std(0) + 1e-3)


class Ensemble(nn.Module):
    """The mean of heads that were trained from different seeds."""

    def __init__(self, members: list[Heads]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, states: Tensor, mask: Tensor, numbers: Tensor, model: Tensor) -> Out:
        outs = [member(states, mask, numbers, model) for member in self.members]
        return Out(*(torch.stack(parts).mean(0) for parts in zip(*outs, strict=True)))


def loss(out: Out, lengths: Tensor, stopped: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over the rows. Lengths are log tokens; what was cut off is only known to be longer than that."""
    cuts3, cuts5 = (torch.log(torch.tensor(cuts) + 0.5) for cuts in (CUTS3, CUTS5))
    error = lengths[:, None] - out.quantiles
    levels = torch.tensor(LEVELS)
    pinball = torch.maximum(levels * error, (levels - 1) * error)  # Koenker and Bassett, 1978
    known = stopped | (lengths > out.regression)
    per_row = 3.0 * torch.where(stopped[:, None] | (error > 0), pinball, torch.zeros_like(pinball)).mean(1)
    per_row = per_row + known * functional.smooth_l1_loss(out.regression, lengths, reduction="none")
    above5 = lengths[:, None] > cuts5
    per_row = per_row + 0.1 * functional.cross_entropy(
        out.classes3, (lengths[:, None] > cuts3).sum(1), reduction="none"
    )
    per_row = per_row + 0.2 * functional.cross_entropy(out.classes5, above5.sum(1), reduction="none")
    ordinal = functional.binary_cross_entropy_with_logits(out.ordinal, above5.float(), reduction="none")
    return ((per_row + 0.1 * ordinal.mean(1)) * weights).sum() / weights.sum()
