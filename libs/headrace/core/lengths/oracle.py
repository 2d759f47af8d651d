"""Predictors that are told the truth, whole or blurred: for simulations, and the bound that no predictor passes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

from headrace.core.lengths.base import Fixed
from headrace.core.lengths.chance import share_of
from headrace.core.lengths.features import Features
from headrace.core.lengths.prediction import LEVELS, Prediction

_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Oracle(Fixed):
    length_of: Callable[[str], int]  # request id -> output tokens if nothing cuts it off
    name: str = "oracle"

    def predict(self, request_id: str, features: Features) -> Prediction:
        return Prediction.exactly(self.length_of(request_id), features.max_tokens)


@dataclass(frozen=True, slots=True)
class Blurred(Fixed):
    """As good as a predictor that was measured: its ranks agree with the truth to Kendall's tau.

    Lengths are taken for log-normal and seen through log-normal noise; the prediction is the posterior, so its bounds
    hold as often as they say where the lengths are what `median` and `spread` say. tau = 2 / pi asin(rho), for two
    normal variables with correlation rho (Greiner's relation).
    """

    length_of: Callable[[str], int]
    tau: float  # within 0 .. 1
    median: float  # of all lengths, in tokens
    spread: float  # standard deviation of the natural logarithm of all lengths
    seed: int = 0
    name: str = "blurred"

    def __post_init__(self) -> None:
        if not (0.0 <= self.tau <= 1.0 and self.median >= 1.0 and self.spread > 0.0):
            raise ValueError("tau must be within 0 .. 1, median at least 1 and spread above 0")

    def predict(self, request_id: str, features: Features) -> Prediction:
        rho = math.sin(math.pi / 2 * self.tau)
        noise = _NORMAL.inv_cdf(share_of(self.seed, request_id))
        true = (math.log(max(1, self.length_of(request_id))) - math.log(self.median)) / self.spread
        seen = rho * true + math.sqrt(1 - rho * rho) * noise  # a standard normal with correlation rho
        centre = math.log(self.median) + self.spread * rho * seen
        width = self.spread * math.sqrt(1 - rho * rho)
        values = [math.exp(centre + width * _NORMAL.inv_cdf(level)) for level in LEVELS]
        return Prediction.of(values, features.max_tokens)
