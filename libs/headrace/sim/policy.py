"""What a policy's name means: an order, and who predicts lengths for it.

"ssjf" learns lengths from the requests that have ended; "ssjf+oracle" is told the truth, "ssjf+random" something else,
"ssjf+blurred:0.6" the truth as a predictor with a Kendall tau of 0.6 would see it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from headrace.core.lengths import Blurred, Oracle, Predictor, RandomLengths
from headrace.core.ordering import ORDERS

POLICIES = tuple(ORDERS)
PREDICTORS = ("oracle", "random", "blurred:TAU")
# Of the published Vicuna-13B lengths that the constant predictor is made of.
_MEDIAN_TOKENS, _SPREAD = 140.0, 1.3

LengthOf = Callable[[str], int]


class PolicyError(ValueError):
    """A policy that there is not; the message lists those there are."""


@dataclass(frozen=True, slots=True)
class Policy:
    name: str
    order: str
    predictor: str = ""  # empty: none is asked

    @classmethod
    def of(cls, name: str) -> "Policy":
        """Raises PolicyError."""
        order, _, predictor = name.partition("+")
        if order not in POLICIES:
            known = f"{', '.join(POLICIES)}, each with +{', +'.join(PREDICTORS)}"
            raise PolicyError(f"no policy {name!r}; there are {known}")
        policy = cls(name, order, predictor)
        policy.predict(lambda _request_id: 1)
        return policy

    def predict(self, length_of: LengthOf) -> Predictor | None:
        """Raises PolicyError: no such predictor."""
        kind, _, tau = self.predictor.partition(":")
        if kind in ("", "oracle", "random") and not tau:
            known: dict[str, Predictor | None] = {"": None, "oracle": Oracle(length_of), "random": RandomLengths()}
            return known[kind]
        try:
            assert kind == "blurred"
            return Blurred(length_of, float(tau), _MEDIAN_TOKENS, _SPREAD)
        except (AssertionError, ValueError) as error:
            raise PolicyError(f"no predictor {self.predictor!r}; there are {', '.join(PREDICTORS)}") from error
