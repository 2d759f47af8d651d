"""How long an answer will be: the distribution, its predictors without a text model, and their correction.

One file per predictor, one line in the registry; those that are told the truth are made by simulations alone.
"""

from collections.abc import Callable

from headrace.core.lengths.base import Predictor
from headrace.core.lengths.calibrator import Calibrator
from headrace.core.lengths.constant import Constant
from headrace.core.lengths.features import Features, of_request
from headrace.core.lengths.histogram import Histogram
from headrace.core.lengths.oracle import Blurred, Oracle
from headrace.core.lengths.prediction import LEVELS, Prediction
from headrace.core.lengths.random_lengths import RandomLengths

PREDICTORS: dict[str, Callable[[], Predictor]] = {
    "constant": Constant,
    "histogram": Histogram,
    "random": RandomLengths,
}

__all__ = [
    "LEVELS",
    "PREDICTORS",
    "Blurred",
    "Calibrator",
    "Constant",
    "Features",
    "Histogram",
    "Oracle",
    "Prediction",
    "Predictor",
    "RandomLengths",
    "of_request",
]
