"""One distribution for everybody: all that a queue without a predictor knows."""

from dataclasses import dataclass

from headrace.core.lengths.base import Fixed
from headrace.core.lengths.features import Features
from headrace.core.lengths.prediction import Prediction

# Quantiles of the 85,482 lengths of Vicuna-13B on LMSYS-Chat-1M that SSJF's authors released, cut at 512 tokens
# (predictions_warmup_cls_1000K.csv of LLM-serving-with-proxy-models).
CHAT = Prediction.of((9, 13, 41, 140, 294, 397, 447, 502))


@dataclass(frozen=True, slots=True)
class Constant(Fixed):
    prediction: Prediction = CHAT
    name: str = "constant"

    def predict(self, request_id: str, features: Features) -> Prediction:
        return self.prediction.capped(features.max_tokens)
