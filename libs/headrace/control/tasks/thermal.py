"""The thermal plant of one GPU as a control task: five hot minutes, three seconds an action.

The sensors' view of the last three seconds is the observation, the GPU's speed the action. A step costs what the
spec's reward lacks, so that costs add up to at least 0: work left undone, 0.01 x queue, 10 for each second over the
limit, 1e-4 x watts. Each seed is another plant: resistances within 0.8 and 1.35 of the kind's, its own load.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.control import heat, power, sensing
from headrace.control.constants import H100, SensorKind
from headrace.control.heat import Paths
from headrace.control.power import Mix
from headrace.control.tasks.base import Floats, Stepped
from headrace.control.thermal.base import LIMIT_C, STEP_S

SECONDS = 3  # an action holds: twenty of them see further back than the sink is slow (28 s)
SENSORS = 5  # temperature C, power W, queue s, busy share, speed: of each second
START_C, INLET_C = 60.0, 32.0
INCIDENT_S, INCIDENT_K, INCIDENT_RESISTANCE = (90, 210), 5.0, 1.6  # warmer air, and less of it
RESISTANCES = (0.8, 1.35)
QUEUE_COST, OVER_COST, WATT_COST = 0.01, 10.0, 1e-4


@dataclass(frozen=True, slots=True)
class ThermalTask:
    name: str = "thermal"
    resistances: tuple[float, float] = RESISTANCES  # beside the kind's
    steps: int = 100

    @property
    def observations(self) -> int:
        return SENSORS * SECONDS

    @property
    def actions(self) -> int:
        return 1

    @property
    def action_range(self) -> tuple[float, float]:
        return H100.speed_least, 1.0

    def world(self, seeds: Sequence[int]) -> "ThermalWorld":
        return ThermalWorld(self, seeds)


class ThermalWorld:
    """die, sink C and queue in seconds of work at full speed: [env]."""

    def __init__(self, task: ThermalTask, seeds: Sequence[int]) -> None:
        seconds = SECONDS * (task.steps + 1)
        asked = [_asked(np.random.default_rng(seed), seconds, task.resistances) for seed in seeds]
        self._work, self._prefill = (np.stack([each[i] for each in asked], axis=1) for i in (0, 1))
        self._paths = Paths.of(H100, np.array([each[2] for each in asked]))
        self._rngs = [np.random.default_rng([seed, 1]) for seed in seeds]
        self.die, self.sink = np.full(len(seeds), START_C), np.full(len(seeds), START_C)
        self.queue, self._second = np.zeros(len(seeds)), 0

    def first(self) -> Floats:
        """After three seconds at full speed."""
        return self.step(np.ones((len(self.queue), 1))).seen

    def step(self, actions: Floats) -> Stepped:
        speed = actions[:, 0]
        seconds = [self._pass(speed) for _ in range(SECONDS)]
        seen = np.concatenate([each[0] for each in seconds], axis=1)
        cost: Floats = np.sum([each[1] for each in seconds], axis=0)
        return Stepped(seen, cost, np.any([each[2] for each in seconds], axis=0))

    def _pass(self, asked: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        now, self._second = self._second, self._second + 1
        # The GPU protects itself, whatever it is told.
        speed = np.where(self.die > H100.hard_limit_c, np.minimum(asked, H100.hard_speed), asked)
        prefill, waiting = self._prefill[now], self.queue + self._work[now]
        able = prefill * power.compute_rate(speed) + (1.0 - prefill) * power.decode_rate(H100, speed)
        served = np.minimum(waiting, able)
        busy = served / able
        self.queue = waiting - served
        watts = power.drawn_w(H100, Mix(prefill * busy, (1.0 - prefill) * busy, np.zeros_like(busy)), speed)
        incident = INCIDENT_S[0] <= now < INCIDENT_S[1]
        air = INCIDENT_RESISTANCE ** (-1.0 / heat.AIR_EXPONENT) if incident else 1.0
        inlet = np.full_like(watts, INLET_C + INCIDENT_K * incident)
        heated = heat.step(self._paths, np.full_like(watts, air), self.die, self.sink, watts, inlet, STEP_S)
        self.die, self.sink = heated.die, heated.sink
        over = heated.peak > LIMIT_C
        cost = self._work[now] - served + QUEUE_COST * self.queue + OVER_COST * over + WATT_COST * watts
        return np.stack([*self._sensed(watts), self.queue, busy, asked], axis=1), cost, over

    def _sensed(self, watts: Floats) -> tuple[Floats, Floats]:
        """Each plant has noise of its own, whoever is beside it."""
        kind = SensorKind()
        pairs = zip(self.die, watts, self._rngs, strict=True)
        read = [(sensing.temperature(kind, die, rng), sensing.power(kind, watt, rng)) for die, watt, rng in pairs]
        return np.array([each[0] for each in read]), np.array([each[1] for each in read])


def _asked(rng: np.random.Generator, seconds: int, resistances: tuple[float, float]) -> tuple[Floats, Floats, float]:
    """Units of work that come each second (one takes a second at full speed), the prefill's share, the resistance."""
    t = np.arange(seconds)
    bases = np.repeat(rng.uniform(0.8, 1.15, seconds // 60 + 1), 60)[:seconds]
    load = 0.86 + 0.12 * np.sin(2 * np.pi * t / 900) + 0.35 * (rng.random(seconds) < 0.02)
    work = np.maximum(0.0, rng.normal(load * bases, 0.15))
    prefill = 0.6 + 0.3 * np.sin(2 * np.pi * t / 300 + rng.uniform(0, 2 * np.pi))
    return work, prefill, rng.uniform(*resistances)
