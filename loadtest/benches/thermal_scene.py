"""A hot hour for single GPUs or servers of eight, as thermal controllers see it: all seeds at once, in one array.

After the study in which the Kalman budget was first tried: a load near what a GPU can do, with bursts and a mixture of
prefill and decode; an inlet about 30 C; for twenty minutes 5 K more and a sink that passes heat on 1.6 times worse.
Each plant is another: resistances within 0.8 and 1.35 of the kind's, which no controller is told.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.control import heat, power, sensing
from headrace.control.constants import DGX_H100, H100, SensorKind
from headrace.control.heat import Paths
from headrace.control.power import Floats, Mix
from headrace.control.thermal import Observed, ThermalController
from headrace.control.thermal.base import LIMIT_C, STEP_S

SECONDS = 3_600
INCIDENT_S = (1_500, 2_700)
INCIDENT_K, INCIDENT_RESISTANCE = 5.0, 1.6
RESISTANCES = (0.8, 1.35)
MATCHED = (1.0, 1.0)  # the controllers' own model


@dataclass(frozen=True, slots=True)
class Scene:
    """gpus: 1, each with air of its own at full flow, or 8 that share a server's fans."""

    gpus: int
    seeds: tuple[int, ...]
    resistances: tuple[float, float] = RESISTANCES
    seconds: int = SECONDS


@dataclass(frozen=True, slots=True)
class Asked:
    """[second, plant, gpu]: units of work that come (one takes a second at full speed), and the prefill's share."""

    work: Floats
    prefill: Floats
    factor: Floats  # [plant, gpu], of resistances


def asked(scene: Scene) -> Asked:
    """The same for every controller."""
    t = np.arange(scene.seconds)
    works, prefills, factors = [], [], []
    for seed in scene.seeds:
        rng = np.random.default_rng(seed)
        shape = (scene.seconds, scene.gpus)
        bases = np.repeat(rng.uniform(0.8, 1.15, (scene.seconds // 60 + 1, scene.gpus)), 60, axis=0)[: scene.seconds]
        load = 0.86 + 0.12 * np.sin(2 * np.pi * t / 900)[:, None] + 0.35 * (rng.random(shape) < 0.02)
        works.append(np.maximum(0.0, rng.normal(load * bases, 0.15)))
        phase = rng.uniform(0, 2 * np.pi, scene.gpus)
        prefills.append(0.6 + 0.3 * np.sin(2 * np.pi * t[:, None] / 300 + phase))
        factors.append(rng.uniform(*scene.resistances, scene.gpus))
    return Asked(np.stack(works, axis=1), np.stack(prefills, axis=1), np.array(factors))


def inlet_c(second: int) -> float:
    return 30.0 + 3.0 * float(np.sin(2 * np.pi * second / 3_600)) + INCIDENT_K * _incident(second)


def _incident(second: int) -> bool:
    return INCIDENT_S[0] < second < INCIDENT_S[1]


@dataclass(frozen=True, slots=True)
class Hour:
    """[second, plant, gpu]."""

    peak_c: Floats
    queue: Floats
    served: Floats
    power_w: Floats

    def figures(self) -> dict[str, float]:
        """Queues in seconds of work; joules for a unit of it."""
        return {
            "over_limit_share": float((self.peak_c > LIMIT_C).mean()),
            "queue_mean": float(self.queue.mean()),
            "queue_p99": float(np.quantile(self.queue, 0.99, axis=0).mean()),
            "joules_per_unit": float(self.power_w.sum() * STEP_S / self.served.sum()),
            "t_max_c": float(self.peak_c.max()),
        }

    def by_plant(self) -> dict[str, Any]:
        """Of each seed, for intervals."""
        return {
            "over_limit_share": (self.peak_c > LIMIT_C).mean(axis=(0, 2)),
            "queue_mean": self.queue.mean(axis=(0, 2)),
        }


def run(scene: Scene, controller: ThermalController) -> Hour:
    """controller: made for len(seeds) x gpus GPUs."""
    told, shape = asked(scene), (len(scene.seeds), scene.gpus)
    rng = np.random.default_rng(997)  # of the sensors
    paths, sensors = Paths.of(H100, told.factor), SensorKind()
    die, sink, queue = np.full(shape, 45.0), np.full(shape, 45.0), np.zeros(shape)
    speed, kept = np.ones(shape), []
    for second in range(scene.seconds):
        queue = queue + told.work[second]
        # The GPU protects itself, whatever it is told.
        real = np.where(die > H100.hard_limit_c, np.minimum(speed, H100.hard_speed), speed)
        prefill = told.prefill[second]
        able = prefill * power.compute_rate(real) + (1.0 - prefill) * power.decode_rate(H100, real)
        served = np.minimum(queue, able)
        busy = served / able
        queue = queue - served
        watts = power.drawn_w(H100, Mix(prefill * busy, (1.0 - prefill) * busy, np.zeros(shape)), real)
        worse = INCIDENT_RESISTANCE ** (-1.0 / heat.AIR_EXPONENT) if _incident(second) else 1.0
        air = worse * _airflow(watts)
        heated = heat.step(paths, air, die, sink, watts, np.full(shape, inlet_c(second)), STEP_S)
        die, sink = heated.die, heated.sink
        kept.append((heated.peak, queue, served, watts))
        temp, drawn = sensing.temperature(sensors, die, rng), sensing.power(sensors, watts, rng)
        seen = Observed(temp.ravel(), drawn.ravel(), queue.ravel(), busy.ravel(), speed.ravel())
        speed = controller.act(seen).reshape(shape)
    return Hour(*(np.array(column) for column in zip(*kept, strict=True)))


def _airflow(watts: Floats) -> Floats:
    """Of a server's fans, which follow all its GPUs; a single GPU has full air."""
    if watts.shape[1] == 1:
        return np.ones_like(watts)
    load = watts.sum(axis=1, keepdims=True) / (watts.shape[1] * H100.prefill_w)
    least = DGX_H100.airflow_least
    return np.broadcast_to(least + (1.0 - least) * load, watts.shape)
