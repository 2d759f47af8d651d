"""Next tokens of a torch batch: greedy ones where the logits are, others as headrace.engines.sampling draws them."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from headrace.engines.sampling import Draw, Drawn, sample


def draw_tokens(logits: torch.Tensor, draws: Sequence[Draw]) -> list[Drawn]:
    """On a GPU greedy rows are drawn where the logits are: only their tokens cross the bus."""
    return sample(_host(logits), draws) if logits.device.type == "cpu" else draw_on_device(logits, draws)


def draw_on_device(logits: torch.Tensor, draws: Sequence[Draw]) -> list[Drawn]:
    drawn = [Drawn(token) for token in logits.argmax(dim=-1).tolist()]
    others = [row for row, draw in enumerate(draws) if not _is_greedy(draw)]
    if others:
        index = torch.tensor(others, device=logits.device)
        for row, better in zip(others, sample(_host(logits[index]), [draws[row] for row in others]), strict=True):
            drawn[row] = better
    return drawn


def _is_greedy(draw: Draw) -> bool:
    sampling = draw.sampling
    return sampling.temperature == 0 and sampling.repetition_penalty == 1.0 and sampling.logprobs is None


def _host(logits: torch.Tensor) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = logits.float().cpu().numpy()
    return rows
