"""Lengths drawn at random: the control that shows what an order gains without knowing anything."""

from dataclasses import dataclass

from headrace.core.lengths.base import Fixed
from headrace.core.lengths.chance import share_of
from headrace.core.lengths.constant import CHAT
from headrace.core.lengths.features import Features
from headrace.core.lengths.prediction import Prediction


@dataclass(frozen=True, slots=True)
class RandomLengths(Fixed):
    drawn_from: Prediction = CHAT
    seed: int = 0
    name: str = "random"

    def predict(self, request_id: str, features: Features) -> Prediction:
        drawn = self.drawn_from.quantile(share_of(self.seed, request_id))
        return Prediction.exactly(drawn, features.max_tokens)
