"""How good predictions are: overall and within each source, because a mixture of sources inflates rank correlation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from headrace.core.lengths import LEVELS, Features
from headrace.predictor.heads import Said
from headrace.predictor.model import Asked, Proxy
from headrace.training.lengths_net import CUTS3, CUTS5
from headrace.training.lengths_rows import Row

Floats = NDArray[np.float64]
ROWS_LEAST = 10  # of a source, for figures of its own


def ask(proxy: Proxy, rows: Sequence[Row]) -> Said:
    """What serving would say, one row each."""
    asked = [
        Asked(row.prompt, Features(row.prompt_tokens, 0, row.model, parts=row.parts, media_tokens=row.media_tokens))
        for row in rows
    ]
    found = list(proxy.say(asked))
    back = np.argsort([i for at, _ in found for i in at])
    names = ("quantiles", "regression", "classes3", "classes5", "ordinal")
    return Said(*(np.concatenate([getattr(said, name) for _, said in found])[back] for name in names))


def offsets_of(quantiles: NDArray[np.float32], rows: Sequence[Row]) -> list[float]:
    """What to add to each log quantile so that it holds on these held-out rows: split conformal prediction (Vovk et
    al., 2005), one level at a time, with cut-off answers as right-censored."""
    residuals = np.log(tokens_of(rows))[:, None] - quantiles.astype(np.float64)
    stopped = np.array([row.stopped for row in rows])
    shifts = [censored_quantile(residuals[:, i], stopped, level) for i, level in enumerate(LEVELS)]
    return [round(float(np.clip(shift, -3.0, 3.0)), 4) for shift in shifts]


def censored_quantile(values: Floats, known: NDArray[np.bool_], level: float) -> float:
    """The least value by which the product-limit estimate (Kaplan and Meier, 1958) has let `level` of all end.

    Not known: only that it is more than its value. Where too few end the greatest value stands in.
    """
    order = np.lexsort((~known, values))  # ends before cuts at the same value
    at_risk = np.arange(len(values), 0, -1)
    left = np.cumprod(np.where(known[order], 1.0 - 1.0 / at_risk, 1.0))
    reached = np.flatnonzero(left <= 1.0 - level + 1e-9)
    return float(values[order[reached[0] if len(reached) else -1]])


def tokens_of(rows: Sequence[Row]) -> Floats:
    return np.array([row.output_tokens for row in rows], np.float64)


def tau(predicted: Floats, tokens: Floats) -> float:
    """Kendall's tau-b; 0 for a prediction that is the same for all."""
    found = float(kendalltau(predicted, tokens).statistic)
    return 0.0 if np.isnan(found) else round(found, 4)


def within(rows: Sequence[Row]) -> dict[str, NDArray[np.bool_]]:
    """Which rows belong to each source that has enough of them."""
    names = np.array([row.source for row in rows])
    places = {str(name): names == name for name in sorted(set(names))}
    return {name: own for name, own in places.items() if own.sum() >= ROWS_LEAST}


def point_figures(predicted: Floats, rows: Sequence[Row]) -> dict[str, Any]:
    """Of predictions in tokens. Where answers were cut off predictions end there, too: serving knows max_tokens."""
    tokens = tokens_of(rows)
    cut = [row.output_tokens for row in rows if not row.stopped]
    predicted = np.minimum(predicted, max(cut)) if cut else predicted
    error = np.abs(predicted - tokens)
    rho = 0.0 if len(set(predicted)) == 1 else float(spearmanr(predicted, tokens).statistic)
    return {
        "mae_tokens": round(float(error.mean()), 2),
        "kendall_tau": tau(predicted, tokens),
        "spearman": round(rho, 4),
        "by_source": {name: tau(predicted[own], tokens[own]) for name, own in within(rows).items()},
        "mae_by_source": {name: round(float(error[own].mean()), 2) for name, own in within(rows).items()},
    }


def figures(said: Said, rows: Sequence[Row]) -> dict[str, Any]:
    """Of the heads; the median is the point prediction. A cut-off answer is covered only by a bound at or above it."""
    tokens = tokens_of(rows)
    held = np.log(tokens) <= said.quantiles[:, LEVELS.index(0.9)] + 1e-6
    true3, true5 = (np.sum(tokens[:, None] > np.array(cuts), 1) for cuts in (CUTS3, CUTS5))
    return point_figures(np.exp(said.quantiles[:, LEVELS.index(0.5)].astype(np.float64)), rows) | {
        "accuracy3": share(said.classes3.argmax(1) == true3),
        "accuracy5": share(said.classes5.argmax(1) == true5),
        "accuracy5_ordinal": share((said.ordinal > 0).sum(1) == true5),
        "coverage90": share(held),
        "coverage90_by_source": {name: share(held[own]) for name, own in within(rows).items()},
        "kendall_tau_regression": tau(said.regression.astype(np.float64), tokens),
        "rows": len(rows),
    }


def share(true: NDArray[np.bool_]) -> float:
    return round(float(np.mean(true)), 4)
