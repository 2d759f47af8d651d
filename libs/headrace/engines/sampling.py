"""The next token as a pure function of (logits, seed, token index): the same after a failure, in any batch.

Gumbel-max: argmax(logits / temperature + noise) draws from the softmax, and the noise of a token does not
depend on the other logits, so a rounding error changes the draw only where two candidates nearly tie.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.core.types import Sampling

Logits = NDArray[np.float32]
Rows = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Draw:
    """One row of a batch."""

    sampling: Sampling
    index: int  # of the output token that is drawn
    seen: Sequence[int]  # prompt and output so far; read only for the repetition penalty


def sample(logits: Logits, draws: Sequence[Draw]) -> list[int]:
    """One token for each row of logits [n, vocab]; the logits are left as they are."""
    assert len(logits) == len(draws)
    tokens = logits.argmax(axis=1)
    penalised = [row for row, draw in enumerate(draws) if draw.sampling.repetition_penalty != 1.0]
    random = [row for row, draw in enumerate(draws) if draw.sampling.temperature > 0]
    chosen = sorted({*penalised, *random})
    if chosen:
        tokens[chosen] = _choose(logits[chosen].astype(np.float64), [draws[row] for row in chosen])
    return [int(token) for token in tokens]


def _choose(rows: Rows, draws: Sequence[Draw]) -> NDArray[np.int64]:
    for row, draw in zip(rows, draws, strict=True):
        if draw.sampling.repetition_penalty != 1.0:
            _penalise(row, draw)
    warm = [i for i, draw in enumerate(draws) if draw.sampling.temperature > 0]
    if warm:
        chosen = [draws[i] for i in warm]
        rows[warm] = _with_noise(rows[warm], chosen)
    tokens: NDArray[np.int64] = rows.argmax(axis=1)
    return tokens


def _penalise(row: Rows, draw: Draw) -> None:
    """Positive logits of seen tokens are divided, negative ones multiplied (CTRL, Keskar et al. 2019, section 4.1)."""
    seen = np.unique(np.asarray(draw.seen, np.int64))
    penalty = draw.sampling.repetition_penalty
    row[seen] = np.where(row[seen] > 0, row[seen] / penalty, row[seen] * penalty)


def _with_noise(rows: Rows, draws: Sequence[Draw]) -> Rows:
    rows = rows / np.array([[draw.sampling.temperature] for draw in draws])
    cut = [i for i, draw in enumerate(draws) if draw.sampling.top_k or draw.sampling.top_p < 1.0]
    if cut:
        rows[cut] = keep_likely(
            rows[cut],
            top_k=np.array([draws[i].sampling.top_k for i in cut]),
            top_p=np.array([draws[i].sampling.top_p for i in cut]),
        )
    noise = [gumbel(draw.sampling.seed, draw.index, rows.shape[1]) for draw in draws]
    return rows + np.stack(noise)


def keep_likely(rows: Rows, top_k: NDArray[np.int64], top_p: NDArray[np.float64]) -> Rows:
    """Rows with -inf for what is not among the top_k (0: all), then not in the nucleus of mass top_p of those.

    The nucleus is the smallest set of most likely tokens whose mass reaches top_p (Holtzman et al. 2020,
    section 3.1). Ties with the last one that is kept are kept.
    """
    ordered = -np.sort(-rows, axis=1)
    rank = np.arange(rows.shape[1])
    k = np.where(top_k > 0, top_k, rows.shape[1])[:, None]
    mass = np.where(rank < k, np.exp(ordered - ordered[:, :1]), 0.0)
    mass /= mass.sum(axis=1, keepdims=True)
    before = np.cumsum(mass, axis=1) - mass
    kept = (rank < k) & ((before < top_p[:, None]) | (rank == 0))
    least = ordered[np.arange(len(rows)), kept.sum(axis=1) - 1]
    return np.where(rows >= least[:, None], rows, -np.inf)


def gumbel(seed: int, index: int, size: int) -> Rows:
    """Standard Gumbel noise from a counter-based generator (Philox 4x64, Salmon et al. 2011), keyed."""
    key = np.array([seed & (2**64 - 1), index], np.uint64)
    raw = np.random.Philox(key=key).random_raw(size)
    uniform = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53  # in (0, 1): both logarithms are finite
    noise: Rows = -np.log(-np.log(uniform))
    return noise
