"""A model as the stages of a process run it: all that a load replaces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from headrace.core.instance import Pace
from headrace.core.stages.roster import Roster
from headrace.engines.base import Engine, ModelSpec
from headrace.modalities import Encoder
from headrace.worker.exports import Exports
from headrace.worker.holds import Held
from headrace.worker.intake import Intake


@dataclass(frozen=True, slots=True)
class Outfit:
    """What the stages run on. An encoder has no engine; prefill and decode have no encoders."""

    spec: ModelSpec
    pieces: Sequence[bytes]
    engine: Engine | None
    encoders: Mapping[str, Encoder]
    hands_over: bool = True  # the engine's KV caches can leave and enter it
    pace: Pace = field(default_factory=Pace)  # as far as it is known
    encode_token_s: float = 0.0  # of media, as a profile says; 0: the encoders take the time they take


@dataclass(frozen=True, slots=True)
class Loaded:
    """The engine of an outfit with those who keep it busy: who may come in, who is in, what leaves."""

    engine: Engine
    intake: Intake
    roster: Roster[Held]
    exports: Exports
