"""The next token as a pure function of (logits, seed, token index, mask): the same after a failure, in any batch.

Gumbel-max: argmax(logits / temperature + noise) draws from the softmax, and the noise of a token does not
depend on the other logits, so a rounding error changes the draw only where two candidates nearly tie. Noise is
computed only where a token can still win: among those that top-k and top-p keep, or that are likely or lucky. Where a
grammar rules, the mask of those that may follow is laid over the logits first (headrace.engines.constrain).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.core.types import Sampling, TokenLogprobs
from headrace.engines.likeliest import Ids, Logits, largest, least_kept, log_softmax_at
from headrace.engines.noise import gumbel, key_of, row_words, word_reaching, words_at

# Without cuts: tokens this much less likely than the likeliest, in units of temperature, must be lucky to win.
UNLIKELY = 8.0
# What is read several times stays in a core's cache: 16 rows of 49,152 logits are 3 MB. More at once is slower.
ROWS_AT_ONCE = 16
TEMPERATURE_MIN = 1e-30  # colder than this is greedy, and finite

Mask = NDArray[np.uint32]  # one bit a token, the lowest first: 1 may follow


@dataclass(frozen=True, slots=True)
class Draw:
    """One row of a batch."""

    sampling: Sampling
    index: int  # of the output token that is drawn
    seen: Sequence[int]  # prompt and output so far; read only for the repetition penalty
    mask: Mask | None = None  # of the tokens that may follow; None: all


@dataclass(frozen=True, slots=True)
class Drawn:
    """The token of one row, and what is told of it if its sampling asks for log-probabilities."""

    token: int
    logprobs: TokenLogprobs | None = None


def sample(logits: Logits, draws: Sequence[Draw]) -> list[Drawn]:
    """One token for each row of logits, float32 [n, vocab]; the logits are left as they are."""
    assert len(logits) == len(draws)
    rows = _masked(_penalised(logits, draws), logits, draws)
    tokens: Ids = rows.argmax(axis=1)
    warm = [row for row, draw in enumerate(draws) if draw.sampling.temperature > 0]
    if warm:
        tokens[warm] = _drawn(rows, tokens, warm, draws)
    told = [row for row, draw in enumerate(draws) if draw.sampling.logprobs is not None]
    if not told:
        return [Drawn(token) for token in tokens.tolist()]
    logprobs = dict[int, TokenLogprobs]()
    for part in _parts(told):
        about = _logprobs(_some(logits, part), tokens[part], [draws[row] for row in part])
        logprobs |= zip(part, about, strict=True)
    return [Drawn(token, logprobs.get(row)) for row, token in enumerate(tokens.tolist())]


def _parts(rows: Sequence[int]) -> Iterator[Sequence[int]]:
    return (rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE))


def _some(rows: Logits, chosen: Sequence[int]) -> Logits:
    return rows if len(chosen) == len(rows) else rows[chosen]


def _penalised(logits: Logits, draws: Sequence[Draw]) -> Logits:
    """Positive logits of seen tokens are divided, negative ones multiplied (CTRL, Keskar et al. 2019, section 4.1)."""
    penalised = [row for row, draw in enumerate(draws) if draw.sampling.repetition_penalty != 1.0]
    if not penalised:
        return logits
    seen = [np.asarray(draws[row].seen, np.int64) for row in penalised]
    lengths = [len(tokens) for tokens in seen]
    at = np.repeat(penalised, lengths), np.concatenate(seen)
    by = np.repeat(np.array([draws[row].sampling.repetition_penalty for row in penalised], np.float32), lengths)
    rows, values = logits.copy(), logits[at]
    rows[at] = np.where(values > 0, values / by, values * by)  # a token seen twice gets the same value twice
    return rows


def _masked(rows: Logits, logits: Logits, draws: Sequence[Draw]) -> Logits:
    """What may not follow is as unlikely as can be."""
    masked = [(row, draw.mask) for row, draw in enumerate(draws) if draw.mask is not None]
    if masked and rows is logits:
        rows = logits.copy()
    for row, mask in masked:
        rows[row, ~allowed(mask, rows.shape[1])] = -np.inf
    return rows


def allowed(mask: Mask, size: int) -> NDArray[np.bool_]:
    """The mask's bits of tokens 0 .. size - 1; beyond its words nothing may follow."""
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little").view(np.bool_)
    return bits[:size] if len(bits) >= size else np.concatenate([bits, np.zeros(size - len(bits), np.bool_)])


def _drawn(rows: Logits, likeliest: Ids, warm: Sequence[int], draws: Sequence[Draw]) -> Ids:
    """Tokens of the warm rows."""
    tokens = np.empty(len(warm), np.int64)
    cut = [at for at, row in enumerate(warm) if draws[row].sampling.top_k or draws[row].sampling.top_p < 1.0]
    for part in _parts(cut):
        chosen = [warm[at] for at in part]
        tokens[part] = _drawn_among_kept(_some(rows, chosen), [draws[row] for row in chosen])
    for at in sorted(set(range(len(warm))).difference(cut)):
        row = warm[at]
        tokens[at] = _drawn_among_all(rows[row], int(likeliest[row]), draws[row])
    return tokens


def _drawn_among_kept(rows: Logits, draws: Sequence[Draw]) -> Ids:
    heat = np.array([max(draw.sampling.temperature, TEMPERATURE_MIN) for draw in draws], np.float32)
    with np.errstate(over="ignore"):  # of cold rows all but the likeliest are -inf
        scaled = (rows - rows.max(axis=1)[:, None]) / heat[:, None]
    top_k = np.array([draw.sampling.top_k for draw in draws])
    top_p = np.array([draw.sampling.top_p for draw in draws])
    at = np.flatnonzero(scaled >= least_kept(scaled, top_k, top_p)[:, None])
    row, column = np.divmod(at, rows.shape[1])
    keys = np.stack([key_of(draw.sampling.seed, draw.index) for draw in draws])
    score = scaled.ravel()[at] + gumbel(words_at(keys, row, column))
    best = np.maximum.reduceat(score, np.searchsorted(row, np.arange(len(draws))))
    won = np.flatnonzero(score == best[row])
    tokens: Ids = column[won[np.unique(row[won], return_index=True)[1]]]
    return tokens


def _drawn_among_all(row: Logits, likeliest: int, draw: Draw) -> int:
    """Exact although most noise is never computed: who is unlikely can only win with noise that its word shows."""
    words = row_words(key_of(draw.sampling.seed, draw.index), len(row))
    to_beat = float(gumbel(words[likeliest : likeliest + 1])[0])
    heat = np.float32(max(draw.sampling.temperature, TEMPERATURE_MIN))
    with np.errstate(over="ignore"):  # of a cold row all but the likeliest are -inf
        scaled = (row - row[likeliest]) / heat
    at = np.flatnonzero((scaled >= -UNLIKELY) | (words >= word_reaching(to_beat + UNLIKELY)))
    return int(at[(scaled[at] + gumbel(words[at])).argmax()])


def _logprobs(rows: Logits, tokens: Ids, draws: Sequence[Draw]) -> list[TokenLogprobs]:
    """Of the logits as the model gave them: before penalty, temperature and cuts. Floats are float32 values, so that
    they pass every message unchanged."""
    wanted = [draw.sampling.logprobs or 0 for draw in draws]
    columns = tokens[:, None]
    if (most := max(wanted)) > 0:
        columns = np.concatenate([columns, largest(rows, most)[1]], axis=1)
    values: NDArray[np.float32] = log_softmax_at(rows, columns).astype(np.float32)
    return [
        TokenLogprobs(own, tuple(zip(ids[:count], likely[:count], strict=True)))
        for (own, *likely), (_, *ids), count in zip(values.tolist(), columns.tolist(), wanted, strict=True)
    ]


__all__ = ["Draw", "Drawn", "Logits", "Mask", "allowed", "sample"]
