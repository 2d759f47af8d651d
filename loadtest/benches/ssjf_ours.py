"""SSJF with this project's own predictor: the packaged heads, asked about held-out prompts with real answers.

Two populations, of prompts that the heads have not learnt from: all held-out rows, whose answers are of several models,
and the default model's own, which end at 512 tokens. Jobs are drawn from the pairs of true and predicted length, as
from the released ones; nothing is recalibrated as answers come, as a live mesh would.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from headrace.core.lengths import Features, Prediction
from headrace.engines.families.smollm2 import SPEC
from headrace.predictor.model import Asked, Proxy
from headrace.training.lengths_rows import Row, shipped_rows
from loadtest.benches import ssjf_biases, ssjf_fair
from loadtest.benches.ssjf_lengths import Lengths

MAX_TOKENS = {SPEC.name: 512}  # what its answers were asked with, and are cut off at
MAX_TOKENS_ELSE = 1_024  # more than any other answer has [I]
LOADS = {"fair_07": 0.7, "fair_09": 0.9}


def measure(seeds: Sequence[int], every: int = 1, threads: int = 1) -> dict[str, Any]:
    """By population; needs the packaged predictor (`headrace.predictor.model.lacking`). every: how many rows to one
    that is asked about."""
    rows = [row for row in shipped_rows() if row.split == "test"][::every]
    pairs = list(zip(rows, Proxy(threads).predict([_asked(row) for row in rows]), strict=True))
    populations = {"held_out": pairs, "default_model": [pair for pair in pairs if pair[0].model == SPEC.name]}
    return {name: _measured(lengths_of(each), seeds) for name, each in populations.items()}


def lengths_of(pairs: Sequence[tuple[Row, Prediction]]) -> Lengths:
    """Each answer is a class of its own, numbered from the one that is expected to be shortest."""
    rows, said = zip(*sorted(pairs, key=lambda pair: pair[1].mean), strict=True)
    tokens = np.array([row.output_tokens for row in rows], np.int64)
    return Lengths(f"{len(rows)} held-out answers", tokens, np.arange(len(rows)), None, {"ssjf": said})


def _asked(row: Row) -> Asked:
    most = MAX_TOKENS.get(row.model, MAX_TOKENS_ELSE)
    return Asked(
        row.prompt, Features(row.prompt_tokens, most, row.model, parts=row.parts, media_tokens=row.media_tokens)
    )


def _measured(lengths: Lengths, seeds: Sequence[int]) -> dict[str, Any]:
    said = [prediction.mean for prediction in lengths.predictions["ssjf"]]
    means, around = ssjf_biases.published(lengths)
    found: dict[str, Any] = {
        "answers": len(lengths.tokens),
        "tokens_mean": float(lengths.tokens.mean()),
        "kendall_tau": float(kendalltau(lengths.tokens, said)[0]),
        "published": means,
        "ci95": {"published": around},
        "gains": {},
    }
    for load, utilisation in LOADS.items():
        ssjf_fair.put(found, load, ssjf_fair.loaded(lengths, seeds, utilisation))
    return found
