"""Answers' true lengths and what SSJF's predictors said of them: the jobs of the bench ssjf.

The pairs that SSJF's authors released are of the three-class predictor; the five-class one is known by a table.
"""

import csv
import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from headrace.core.lengths import LEVELS, Prediction
from headrace.core.lengths.constant import CHAT

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FILE = "lmsys_proxy_predictions_cls.csv.gz"
_FIELDS = ("output_token_length", "predicted_length")
# Of the released simulator [C]: a job takes so long, alone or in a batch.
JOB_S, TOKEN_S = 0.1, 0.02
SHORTEST, LONGEST = 2, 511  # tokens that the authors kept [C]

# The five-class predictor on the released Vicuna-13B answers: true tokens by predicted class, mean and standard
# deviation, measured on the released predictions [M].
CLASS_MEANS = (36.0, 121.0, 228.0, 314.0, 342.0)
CLASS_DEVIATIONS = (57.0, 95.0, 111.0, 115.0, 140.0)
# How often it says each class is not in the table [I]: as often as the true ones, cut at p25, p50, p75 and p99 [C].
CLASS_SHARES = (0.25, 0.25, 0.25, 0.24, 0.01)
MULTI_CLS = {"kendall_tau": 0.635, "spearman": 0.774}  # of it, measured on the released predictions [M]
CLS = {"kendall_tau": 0.567, "spearman": 0.695}  # of the three-class one [M]


class PairsError(ValueError):
    """A file of predictions that cannot be used: which line and field, and what is expected there."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Jobs, one a row; `classes` holds what each predictor said."""

    tokens: Ints
    classes: Mapping[str, Ints]

    @property
    def exec_s(self) -> Floats:
        return np.asarray(JOB_S + TOKEN_S * self.tokens, np.float64)


@dataclass(frozen=True, slots=True)
class Lengths:
    """`predictions[policy][class]`: the true lengths of the answers of which that predictor says that class."""

    source: str
    tokens: Ints  # a population to draw from
    said: Ints | None  # a class each; None: only the table is there
    table: Floats | None  # P(class of the five | tokens), rows by tokens - SHORTEST; None: no such predictor
    predictions: Mapping[str, tuple[Prediction, ...]]

    def draw(self, rng: Generator, jobs: int) -> Drawn:
        rows = rng.integers(0, len(self.tokens), jobs)
        tokens = self.tokens[rows]
        classes = {} if self.said is None else {"ssjf": self.said[rows]}
        if self.table is not None:
            five = (rng.random(jobs)[:, None] > self.table.cumsum(axis=1)[tokens - SHORTEST, :-1]).sum(axis=1)
            classes["ssjf_multi_cls" if classes else "ssjf"] = five
        return Drawn(tokens, classes)

    @property
    def policies(self) -> tuple[str, ...]:
        return tuple(self.predictions)

    def expected_tokens(self, policy: str, drawn: Drawn) -> Floats:
        means = np.array([prediction.mean for prediction in self.predictions[policy]])
        return means[drawn.classes[policy]]


def find() -> Path:
    """Beside the checkout, where the project keeps data that it may not carry."""
    return Path(__file__).parents[2].parent / "shared" / "data" / FILE


def released(path: Path) -> Lengths:
    """From the pairs.

    Raises:
        PairsError: no file, or not the form of it.
    """
    tokens, said = _pairs(path)
    table = five_classes(np.bincount(tokens - SHORTEST, minlength=LONGEST - SHORTEST + 1).astype(np.float64))
    three = tuple(_prediction(tokens[said == label]) for label in range(int(said.max()) + 1))
    found = {"ssjf": three, "ssjf_multi_cls": _of_table(tokens, table)}
    return Lengths(f"{len(tokens)} released pairs", tokens, said, table, found)


def tabled() -> Lengths:
    """Without the pairs: lengths of the packaged distribution of the same answers, classes by the table."""
    edges = np.arange(SHORTEST - 0.5, LONGEST + 1.0)
    weights = -np.diff([CHAT.exceeds(edge) for edge in edges])
    copies = np.round(weights / weights.sum() * 100_000).astype(np.int64)
    tokens = np.repeat(np.arange(SHORTEST, LONGEST + 1), copies)
    table = five_classes(weights)
    return Lengths("a table of five predicted classes", tokens, None, table, {"ssjf": _of_table(tokens, table)})


def five_classes(weights: Floats) -> Floats:
    """P(class | tokens) by the table, for lengths SHORTEST .. LONGEST that are as frequent as `weights` say.

    Of all joint distributions that have a class's mean and deviation, the one nearest to the lengths' own: their
    frequency times exp(a x + b x^2), a and b by Newton's method (maximum entropy).
    """
    x = np.arange(SHORTEST, LONGEST + 1) / LONGEST
    moments = np.stack([x, x * x])
    likelihoods = []
    for mean, deviation in zip(CLASS_MEANS, CLASS_DEVIATIONS, strict=True):
        wanted = np.array([mean / LONGEST, (mean**2 + deviation**2) / LONGEST**2])
        likelihoods.append(_tilt(moments, weights / weights.sum(), wanted))
    joint = np.stack(likelihoods, axis=1) * np.array(CLASS_SHARES)
    return np.asarray(joint / joint.sum(axis=1, keepdims=True))


def _tilt(moments: Floats, base: Floats, wanted: Floats, steps: int = 200) -> Floats:
    """exp(theta moments), normalised against base, with these expectations: the dual is convex, steps are damped."""
    theta = np.zeros(len(moments))
    for _ in range(steps):
        weight = _weight(theta, moments, base)
        share = base * weight
        off = moments @ share - wanted
        if np.abs(off).max() < 1e-10:
            break
        spread = (moments * share) @ moments.T - np.outer(moments @ share, moments @ share)
        step = np.linalg.solve(spread, off)
        theta -= step * min(1.0, 5.0 / np.abs(step).max())
    assert np.abs(moments @ (base * _weight(theta, moments, base)) - wanted).max() < 1e-6, "the table cannot be met"
    return weight


def _weight(theta: Floats, moments: Floats, base: Floats) -> Floats:
    exponent = theta @ moments
    weight = np.exp(exponent - exponent.max())
    return np.asarray(weight / (base @ weight))


def _of_table(tokens: Ints, table: Floats) -> tuple[Prediction, ...]:
    """Of each class: the lengths' quantiles, weighted by how likely each length is to be given that class."""
    x = np.arange(SHORTEST, LONGEST + 1)
    counts = np.bincount(tokens - SHORTEST, minlength=len(x))
    out = []
    for column in table.T:
        cumulated = np.cumsum(counts * column)
        out.append(Prediction.of([float(x[np.searchsorted(cumulated, p * cumulated[-1])]) for p in LEVELS]))
    return tuple(out)


def _prediction(tokens: Ints) -> Prediction:
    return Prediction.of([float(value) for value in np.quantile(tokens, LEVELS)])


def _pairs(path: Path) -> tuple[Ints, Ints]:
    tokens, said = [], []
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            for number, row in enumerate(csv.DictReader(lines), 2):
                for field in _FIELDS:
                    if not (row.get(field) or "").isdecimal():
                        raise PairsError(f"{path}, line {number}, field {field}: must be a whole number")
                tokens.append(int(row[_FIELDS[0]]))
                said.append(int(row[_FIELDS[1]]))
    except OSError as error:
        raise PairsError(f"{path}: cannot be read: {error.strerror or error}; give another by --data") from error
    if not tokens or min(tokens) < SHORTEST or max(tokens) > LONGEST:
        raise PairsError(f"{path}, field {_FIELDS[0]}: lengths must be {SHORTEST} to {LONGEST} tokens")
    if set(said) != set(range(max(said) + 1)):
        raise PairsError(f"{path}, field {_FIELDS[1]}: classes must be 0, 1 ... without gaps")
    return np.array(tokens, np.int64), np.array(said, np.int64)
