"""What the governor asks of whoever sends work to workers: how fast they are under their power caps, which are to be
spared, how many of their slots may be used. Nouns; what is made of them is in queue/governing.py and queue/sparing.py.
"""

import math
from dataclasses import dataclass

from headrace.core.instance import Pace

RISKY = 0.5  # [I] weights below: such a worker is sent nothing new that others can take in time
WEIGHT_LEAST = 0.05  # [I] that loads are divided by


@dataclass(frozen=True, slots=True)
class Speeds:
    """Of a worker's stages, as shares of full speed: above 0; above 1 only where a lighter model is simulated."""

    prefill: float = 1.0
    decode: float = 1.0
    encode: float = 1.0

    def slowed(self, pace: Pace) -> Pace:
        """The pace at these speeds of what runs at `pace` at full speed."""
        if self == FULL:
            return pace
        return Pace(pace.step_s / self.decode, pace.sequence_s / self.decode, pace.prefill_token_s / self.prefill)


FULL = Speeds()


@dataclass(frozen=True, slots=True)
class Governance:
    """Of one worker."""

    worker: str
    weight: float = 1.0  # 1: no risk; 0: nothing new while others can take it
    slots_share: float = 1.0  # of its slots that may be used; what runs stays
    speeds: Speeds = FULL

    @property
    def risky(self) -> bool:
        return self.weight < RISKY

    def usable(self, slots: int) -> int:
        return slots if self.slots_share >= 1.0 else math.ceil(self.slots_share * slots - 1e-9)


@dataclass(frozen=True, slots=True)
class StageHint:
    """Where instances would serve better: positive here, negative elsewhere."""

    stage: str
    move: int
