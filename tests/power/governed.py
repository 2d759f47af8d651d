"""A small world for the governor: devices that work, draw power by the power law, follow caps and report with noise."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from headrace.control.constants import H100
from headrace.control.power import compute_rate, decode_rate, speed_under
from headrace.core.power.decision import Decision
from headrace.core.power.fleet import STAGES, Device, Fleet, Floats, Kind, Mask, Member, Readings, Row
from headrace.core.power.governor import Governor

KIND = Kind(
    H100.context_w,
    H100.encode_w,
    H100.prefill_w,
    H100.decode_w,
    H100.speed_exponent,
    H100.speed_least,
    H100.decode_free_speed,
    air_m3s=0.065,
    limit_c=H100.soft_limit_c,
)
LEAST_W, MOST_W = 150.0, 700.0


def fleet(
    stages: Sequence[str],
    *,
    rows: Sequence[Row] = (Row("row-0"),),
    of_row: Sequence[int] = (),
    opaque: Sequence[int] = (),
    least_w: float = LEAST_W,
    gpus: int = 1,
) -> Fleet:
    """One worker with one device each; a stage may be several with + between."""
    members = tuple(
        Member(f"w-{at}", of_row[at] if of_row else 0, tuple(name.split("+")), at in opaque)
        for at, name in enumerate(stages)
    )
    devices = tuple(Device(f"w-{at}/gpu", at, KIND, least_w, MOST_W, gpus) for at in range(len(stages)))
    return Fleet(tuple(rows), members, devices)


@dataclass(slots=True)
class World:
    """load: seconds of work at full speed that come in a second, of each device."""

    fleet: Fleet
    load: Floats
    noise: float = 0.0
    seed: int = 0
    cap_w: Floats = field(init=False)
    fallback_w: Floats = field(init=False)
    waits: Floats = field(init=False)
    power_w: Floats = field(init=False)
    done: Floats = field(init=False)  # in the last second
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        n = len(self.fleet.devices)
        self.cap_w, self.fallback_w, self.waits = np.full(n, np.inf), np.zeros(n), np.zeros(n)
        self.power_w, self.done = np.zeros(n), np.zeros(n)
        self.rng = np.random.default_rng(self.seed)

    @property
    def decodes(self) -> Mask:
        found: Mask = self.fleet.serves[STAGES.index("decode")] & (self.fleet.serves.sum(axis=0) == 1)
        return found

    @property
    def phase_w(self) -> Floats:
        found: Floats = np.where(self.decodes, H100.decode_w, H100.prefill_w)
        return found

    def second(self) -> Readings:
        """A second passes under the caps that hold; what is told at its end."""
        n = len(self.load)
        speed = speed_under(H100, self.cap_w, self.phase_w)
        rate = np.where(self.decodes, decode_rate(H100, speed), compute_rate(speed))
        todo = self.waits + self.load
        busy = np.minimum(1.0, todo / rate)
        self.done = busy * rate
        self.waits = np.minimum(todo - self.done, 20.0)
        dynamic = self.phase_w - H100.context_w
        self.power_w = H100.context_w + busy * dynamic * speed**H100.speed_exponent
        told = self.power_w * (1.0 + self.noise * self.rng.standard_normal(n))
        shares = self.fleet.serves / np.maximum(self.fleet.serves.sum(axis=0), 1) * busy
        temp = np.floor(30.0 + 0.058 * self.power_w + self.rng.normal(0.0, 0.4, n))
        return Readings(
            told,
            temp,
            np.full(n, 0.1),
            H100.context_w + busy * dynamic,
            busy,
            np.where(busy > 0.0, speed, 0.0),
            np.where(np.isfinite(self.cap_w), self.cap_w, np.nan),
            shares,
            self.waits.copy(),
            np.ones(n),
            np.full(n, np.nan),
        )

    def obey(self, decision: Decision) -> None:
        self.cap_w = np.where(decision.cap_w > 0.0, decision.cap_w, np.inf)
        self.fallback_w = decision.fallback_w

    def may_draw_w(self) -> Floats:
        """[row]: if every device drew all that its cap allows."""
        return self.fleet.by_row(np.minimum(self.cap_w, self.fleet.most_w))


def run(governor: Governor, world: World, seconds: int, start_s: float = 0.0) -> list[Decision]:
    found = []
    for second in range(seconds):
        seen = world.second()
        found.append(governor.step(world.fleet, seen, start_s + second))
        world.obey(found[-1])
    return found
