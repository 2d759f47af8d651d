"""What a length predictor has to beat: one number for all, the prompt's length, a frozen encoder with boosted trees."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor

from headrace.predictor.encoder import Encoder
from headrace.predictor.model import TOKENS_AT_ONCE
from headrace.predictor.reading import Reader
from headrace.training.lengths_figures import point_figures, tokens_of
from headrace.training.lengths_rows import Row

_TREES, _RATE, _SEED = 200, 0.06, 0

Floats = NDArray[np.float64]


def baselines(learnt: Sequence[Row], asked: Sequence[Row], threads: int) -> dict[str, Any]:
    """Figures of each on the rows `asked`, learnt from the others."""
    known, wanted = np.log(tokens_of(learnt)), list(asked)
    x, y = _embedded([*learnt, *asked], threads), len(learnt)
    trees = HistGradientBoostingRegressor(max_iter=_TREES, learning_rate=_RATE, random_state=_SEED).fit(x[:y], known)
    constant = np.full(len(wanted), np.exp(np.median(known)))
    return {
        "constant": point_figures(constant, wanted),
        "prompt_length": point_figures(_by_length(x[:y, -1], known, x[y:, -1]), wanted),
        "minilm_boosting": point_figures(np.exp(trees.predict(x[y:])), wanted),
    }


def _by_length(lengths: Floats, known: Floats, asked: Floats) -> Floats:
    """A line through log prompt length and log answer length; it only falls or rises, so ranks are the prompt's own."""
    slope, level = np.polyfit(np.log(lengths), known, 1)
    return np.asarray(np.exp(level + slope * np.log(asked)))


def _embedded(rows: Sequence[Row], threads: int) -> Floats:
    """Mean state of the untouched encoder, scaled to length 1, and the prompt's tokens: [n, width + 1]."""
    prompts = sorted({row.prompt for row in rows})
    ids = Reader().read(prompts)
    encoder, found = Encoder(threads), dict[str, Floats]()
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    while order:
        batch = order[: max(1, TOKENS_AT_ONCE // len(ids[order[0]]) // 2)]
        del order[: len(batch)]
        states, mask = encoder.states([ids[i] for i in batch])
        mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        mean /= np.linalg.norm(mean, axis=1, keepdims=True)
        found |= {
            prompts[i]: np.append(one, len(ids[i])) for i, one in zip(batch, mean.astype(np.float64), strict=True)
        }
    return np.stack([found[row.prompt] for row in rows])
