"""What a budget allows at most: the power law and the stages' paces, and nothing lost anywhere.

A stage at a share of its full rate draws least if it computes all the time, as slowly as that: power goes with the
3.56th power of speed. Decode runs as long as anything is there; slower, it has more sequences at once, up to its slots.
So this is a bound for any governor, and caps that reach it are the best static ones for this load.
"""

from dataclasses import dataclass

from headrace.control.power import speed_under, watts_at
from headrace.rehearsal.scene import ANSWER_TOKENS, DECODE_S, SLOTS, Scene

HALVINGS = 40


@dataclass(frozen=True, slots=True)
class Shared:
    """Watts of one GPU of each stage, and what they serve."""

    encode_w: float
    prefill_w: float
    decode_w: float
    rate_rps: float

    def row_w(self, scene: Scene) -> float:
        return scene.encoders * self.encode_w + scene.prefill * self.prefill_w + scene.decode * self.decode_w

    def of(self, stages: tuple[str, ...]) -> float:
        return {"encode": self.encode_w, "prefill": self.prefill_w, "decode": self.decode_w}[stages[0]]


def least(scene: Scene, rate_rps: float) -> Shared:
    """The least watts that serve so many requests a second."""
    kind = scene.kind
    speed = max(rate_rps / scene.capacity_rps, kind.speed_least)
    sequences = rate_rps * ANSWER_TOKENS * DECODE_S  # at once, at full speed
    rate = max(sequences / (scene.decode * SLOTS), kind.speed_least / kind.decode_free_speed)
    decode_speed = min(1.0, rate) * kind.decode_free_speed
    return Shared(
        watts_at(kind, kind.encode_w, speed),
        watts_at(kind, kind.prefill_w, speed),
        watts_at(kind, kind.decode_w, decode_speed),
        rate_rps,
    )


def best(scene: Scene, budget_w: float) -> Shared:
    """The caps under which the row serves most, up to its capacity; those of next to nothing if even that is more."""
    low, high = 0.0, scene.capacity_rps
    if least(scene, high).row_w(scene) <= budget_w:
        return least(scene, high)
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if least(scene, middle).row_w(scene) <= budget_w else (low, middle)
    return least(scene, low)


def free_decode(scene: Scene, budget_w: float) -> Shared:
    """The same where decode loses nothing: each answer as fast as without a cap."""
    kind = scene.kind
    decode_w = watts_at(kind, kind.decode_w, kind.decode_free_speed)
    left_w = budget_w - scene.decode * decode_w
    each_w = left_w / (scene.encoders + scene.prefill)
    return Shared(each_w, each_w, decode_w, float(speed_under(kind, each_w, kind.prefill_w)) * scene.capacity_rps)


def even(scene: Scene, budget_w: float) -> Shared:
    """One cap for all, once and for ever: each GPU the same share of its own limit."""
    each_w, kind = budget_w / scene.workers, scene.kind
    return Shared(each_w, each_w, each_w, float(speed_under(kind, each_w, kind.prefill_w)) * scene.capacity_rps)
