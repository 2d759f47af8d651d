"""What every predictor of output lengths offers the queue."""

from typing import Protocol

from headrace.core.lengths.features import Features
from headrace.core.lengths.prediction import Prediction


class Predictor(Protocol):
    """No clock, no I/O: a prediction is a function of its arguments and of what was learnt before."""

    @property
    def name(self) -> str: ...

    def predict(self, request_id: str, features: Features) -> Prediction:
        """The length of the whole output, capped at features.max_tokens."""
        ...

    def learn(self, features: Features, output_tokens: int, *, stopped: bool) -> None:
        """A request ended after so many tokens. Not `stopped`: it was cut off and would have gone on."""
        ...


class Fixed:
    """A predictor that learns nothing."""

    __slots__ = ()

    def learn(self, features: Features, output_tokens: int, *, stopped: bool) -> None:
        pass
