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
    drawn = [Drawn(token) for token in _masked(logits, draws).argmax(dim=-1).tolist()]
    others = [row for row, draw in enumerate(draws) if not _is_greedy(draw)]
    if others:
        index = torch.tensor(others, device=logits.device)
        for row, better in zip(others, sample(_host(logits[index]), [draws[row] for row in others]), strict=True):
            drawn[row] = better
    return drawn


def _masked(logits: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    """Of greedy rows that a grammar rules, what may not follow is as unlikely as can be: 32 tokens a word go up."""
    masked = [(row, draw.mask) for row, draw in enumerate(draws) if draw.mask is not None and _is_greedy(draw)]
    if not masked:
        return logits
    words = torch.from_numpy(np.stack([mask for _, mask in masked]).view(np.int32)).to(logits.device)
    bits = (words[:, :, None] >> torch.arange(32, device=logits.device, dtype=torch.int32)) & 1
    may = bits.reshape(len(masked), -1)[:, : logits.shape[1]].bool()
    may = torch.nn.functional.pad(may, (0, logits.shape[1] - may.shape[1]))
    index = torch.tensor([row for row, _ in masked], device=logits.device)
    return logits.index_copy(0, index, logits[index].masked_fill(~may, -torch.inf))


def _is_greedy(draw: Draw) -> bool:
    sampling = draw.sampling
    return sampling.temperature == 0 and sampling.repetition_penalty == 1.0 and sampling.logprobs is None


def _host(logits: torch.Tensor) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = logits.float().cpu().numpy()
    return rows
