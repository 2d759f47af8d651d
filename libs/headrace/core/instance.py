"""What a worker says of itself as an LLM instance: how fast it is, what it has done, what else it could load.

Nouns of the heartbeat that the waiting-time estimator and the planner read.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a model runs on a worker, as its profile says: an iteration takes
    step_s + sequence_s x decoding sequences + prefill_token_s x prefilled tokens. All zeros: nothing is known."""

    step_s: float = 0.0
    sequence_s: float = 0.0  # context of a usual length included
    prefill_token_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Done:
    """What a worker has computed since its model was loaded. All four grow together, at the end of an iteration."""

    busy_s: float = 0.0
    iterations: int = 0
    prefill_tokens: int = 0
    decode_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a worker's encoders have computed since its start; what was known already is not counted."""

    busy_s: float = 0.0
    tokens: int = 0  # of media


NO_PACE, NOTHING_DONE, NOTHING_ENCODED = Pace(), Done(), Encoded()


@dataclass(frozen=True, slots=True)
class Loadable:
    """A model that a worker could serve instead of its own, and what it would then be."""

    model: str
    load_s: float  # from the order until it serves, as it is now: from host memory if `warm`
    warm: bool = False  # its weights lie in host memory
    slots: int = 0
    blocks: int = 0
    block_tokens: int = 1
    pace: Pace = NO_PACE
