"""GPUs at work under a thermal controller, second by second: what benches and training look at.

All arrays are of any one shape, a GPU each; what changes with time has the second in front.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from headrace.control import heat, power, sensing
from headrace.control.constants import GpuKind, SensorKind
from headrace.control.heat import Paths
from headrace.control.power import Floats, Mix
from headrace.control.thermal.base import LIMIT_C, STEP_S, Observed

START_C = 45.0


class Acts(Protocol):
    def act(self, seen: Observed) -> Floats: ...


@dataclass(frozen=True, slots=True)
class Trial:
    """What happens to the GPUs, whoever controls them."""

    kind: GpuKind
    paths: Paths
    work: Floats  # [second, ...] units that come; one takes a second at full speed
    prefill: Floats  # [second, ...] share of it
    inlet_c: Floats  # [second, ...]
    air: Floats  # [second, ...] of what the fans would move, the share that arrives: 1 unless something is broken
    fans: Callable[[Floats], Floats] = np.ones_like  # from watts to the share of full airflow
    sensors: SensorKind = field(default_factory=SensorKind)
    sensor_seed: int = 997


@dataclass(frozen=True, slots=True)
class Hour:
    """[second, ...]."""

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

    def by_plant(self) -> dict[str, Floats]:
        """Of each seed [second, seed, gpu], for intervals."""
        return {
            "over_limit_share": (self.peak_c > LIMIT_C).mean(axis=(0, 2)),
            "queue_mean": self.queue.mean(axis=(0, 2)),
            "joules_per_unit": self.power_w.sum(axis=(0, 2)) * STEP_S / self.served.sum(axis=(0, 2)),
            "served": self.served.sum(axis=(0, 2)),
        }


def run(trial: Trial, controller: Acts, watch: Callable[[Observed, Floats], None] | None = None) -> Hour:
    """watch: is given what the controller saw and the speed that it chose, each second."""
    kind, shape = trial.kind, trial.work.shape[1:]
    rng = np.random.default_rng(trial.sensor_seed)
    die, sink, queue = np.full(shape, START_C), np.full(shape, START_C), np.zeros(shape)
    speed, kept = np.ones(shape), []
    for second, (work, prefill) in enumerate(zip(trial.work, trial.prefill, strict=True)):
        queue = queue + work
        # The GPU protects itself, whatever it is told.
        real = np.where(die > kind.hard_limit_c, np.minimum(speed, kind.hard_speed), speed)
        able = prefill * power.compute_rate(real) + (1.0 - prefill) * power.decode_rate(kind, real)
        served = np.minimum(queue, able)
        busy = served / able
        queue = queue - served
        watts = power.drawn_w(kind, Mix(prefill * busy, (1.0 - prefill) * busy, np.zeros(shape)), real)
        air = trial.air[second] * trial.fans(watts)
        heated = heat.step(trial.paths, air, die, sink, watts, trial.inlet_c[second], STEP_S)
        die, sink = heated.die, heated.sink
        kept.append((heated.peak, queue, served, watts))
        temp, drawn = sensing.temperature(trial.sensors, die, rng), sensing.power(trial.sensors, watts, rng)
        seen = Observed(temp.ravel(), drawn.ravel(), queue.ravel(), busy.ravel(), speed.ravel())
        chosen = controller.act(seen)
        if watch is not None:
            watch(seen, chosen)
        speed = chosen.reshape(shape)
    return Hour(*(np.array(column) for column in zip(*kept, strict=True)))
