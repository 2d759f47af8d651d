"""What a policy's name means: an order or a planner, without which operations, and who predicts lengths for it.

"ssjf" learns lengths from the requests that have ended; "ssjf+oracle" is told the truth, "ssjf+random" something else,
"ssjf+blurred:0.6" the truth as a predictor with a Kendall tau of 0.6 would see it. "headrace" plans request groups;
"headrace-evict" does it without eviction, "headrace-swap-move+oracle" without two operations and with true lengths.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from headrace.core.lengths import Blurred, Oracle, Predictor, RandomLengths
from headrace.core.ordering import ENCODER_ORDER, ORDERS

# Names of QueueConfig.planner. Those that are only compared with have their "vq-": there are orders of that name.
PLANNERS: Mapping[str, str] = {"headrace": "headrace", "vq-fcfs": "fcfs", "vq-edf": "edf", "shepherd": "shepherd"}
# Of "headrace": what may be turned off, and the field of QueueConfig that does it.
SWITCHES: Mapping[str, str] = {
    "evict": "evict",
    "swap": "swap",
    "balance": "balance",
    "pull": "pull",
    "plan": "solve",
    "warm": "warm",
    "move": "move",
    "reject": "early_rejection",
    "fair": "fair",
    "overlap": "overlap",
}
POLICIES = (*ORDERS, *PLANNERS, *(f"headrace-{switch}" for switch in SWITCHES))
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
    planner: str = ""  # empty: a line for each model, in that order
    off: tuple[str, ...] = ()  # fields of QueueConfig
    predictor: str = ""  # empty: none is asked

    @classmethod
    def of(cls, name: str) -> "Policy":
        """Raises PolicyError."""
        how, _, predictor = name.partition("+")
        first, *switches = how.split("-") if how.startswith("headrace") else (how,)
        if first not in POLICIES or not SWITCHES.keys() >= set(switches):
            known = f"{', '.join(POLICIES)}, each with +{', +'.join(PREDICTORS)}"
            raise PolicyError(f"no policy {name!r}; there are {known}")
        if first in PLANNERS:
            before = ENCODER_ORDER if first == "headrace" else "fcfs"
            policy = cls(name, before, PLANNERS[first], tuple([SWITCHES[each] for each in switches]), predictor)
        else:
            policy = cls(name, first, predictor=predictor)
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
