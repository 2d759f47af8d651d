"""Alignment before any language-model step: soft tokens are regressed onto word embeddings of a short caption.

The language model is not run, so this takes a minute and saves most of the training that would follow.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from headrace.engines.families.smollm2 import SmolLM2
from headrace.modalities.image import SOFT_TOKENS
from headrace.training.pictures import Digit, Label
from headrace.training.tower import Projector

_BATCH = 256


def caption(label: Label) -> str:
    """Four tokens, one a soft token; parity is named because a question asks for it."""
    if isinstance(label, Digit):
        return f" digit {label.word} {label.word} {label.parity}"
    return f" {label.color} {label.kind} {label.corner}"


def captions(family: SmolLM2, labels: Sequence[Label]) -> Tensor:
    """int64 [n, 4]."""
    cache = {label: family.encode(caption(label)) for label in set(labels)}
    assert all(len(ids) == SOFT_TOKENS for ids in cache.values())
    return torch.tensor([cache[label] for label in labels])


def align(projector: Projector, features: Tensor, targets: Tensor, embedding: Tensor, steps: int, seed: int) -> float:
    """Train the projector in place; returns the last mean squared error over the embedding table's variance."""
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(projector.parameters(), lr=1e-3, weight_decay=0.05)
    loss = torch.zeros(())
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1.02 - step / steps)
        rows = torch.randint(len(features), (_BATCH,))
        residual = (projector(features[rows].float()) - embedding[targets[rows]]) / projector.scale
        loss = residual.pow(2).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    error: float = loss.item()
    return error


def nearest_word_shares(projector: Projector, features: Tensor, targets: Tensor, embedding: Tensor) -> list[float]:
    """By soft token: how often its nearest caption word is the right one."""
    words = targets.unique()
    with torch.no_grad():
        soft = projector(features.float())
        nearest = words[torch.cdist(soft.flatten(0, 1), embedding[words]).argmin(1)].view(targets.shape)
    shares: list[float] = (nearest == targets).float().mean(0).tolist()
    return [round(share, 4) for share in shares]
