"""Plants of every kind of cooling, drawn from stated ranges: what a learnt controller is trained on, and what it has
never seen (a failed fan, a liquid loop, hotter air).

Constants are factors of the kind's own, each uniform in its range. All ranges are ours to choose [I]; they hold what
the project's constants leave open, and the held-out families lie outside of them.
"""

from dataclasses import dataclass, replace

import numpy as np

from headrace.control.constants import H100, SensorKind
from headrace.control.heat import Paths
from headrace.control.power import Floats
from headrace.control.trial import Trial

Range = tuple[float, float]
UNTIL_END_S = (1e6, 1e6)


@dataclass(frozen=True, slots=True)
class Ranges:
    """(least, most) of each plant."""

    die_sink: Range = (0.8, 1.25)  # resistance
    sink_air: Range = (0.8, 1.7)  # resistance, at full airflow
    die_heat: Range = (0.8, 1.25)  # capacity
    sink_heat: Range = (0.7, 1.4)  # capacity
    fans_least: Range = (0.4, 1.0)  # airflow at no load; 1: fans that do not follow the load
    inlet_c: Range = (24.0, 37.0)
    inlet_swing_k: Range = (0.0, 4.0)  # within an hour
    load: Range = (0.5, 1.0)  # of what a GPU can do at full speed
    prefill: Range = (0.4, 0.8)  # share of the work
    prefill_swing: Range = (0.0, 0.3)
    prefill_period_s: Range = (120.0, 600.0)
    incident_share: float = 0.7  # of the plants have one
    incident_s: Range = (300.0, 1_200.0)
    incident_air: Range = (0.5, 1.0)  # share of the airflow that is left
    incident_k: Range = (0.0, 6.0)  # warmer air
    temp_sd_c: Range = (0.2, 0.8)  # of sensors: one for all plants of a draw
    power_sd: Range = (0.01, 0.05)


TRAINED = Ranges()
FAILED_FAN = replace(
    TRAINED,
    load=(0.4, 0.8),
    incident_share=1.0,
    incident_s=UNTIL_END_S,
    incident_air=(0.25, 0.4),
    incident_k=(0.0, 0.0),
)
# 0.026 K/W in all (8 x H100, 41 to 50 C at load: 2507.16781 [V]), warm water, a cold plate that holds little heat.
LIQUID = replace(
    TRAINED,
    die_sink=(0.5, 0.6),
    sink_air=(0.38, 0.42),
    sink_heat=(0.3, 0.5),
    fans_least=(1.0, 1.0),
    inlet_c=(30.0, 45.0),
    incident_share=0.0,
)
HOTTER = replace(TRAINED, inlet_c=(38.0, 44.0), load=(0.4, 0.8))
# What a family is called in figures; the first is what was trained on.
FAMILIES = {"randomised": TRAINED, "failed_fan": FAILED_FAN, "liquid": LIQUID, "hotter": HOTTER}


@dataclass(frozen=True, slots=True)
class _Plant:
    constants: tuple[float, float, float, float, float]
    work: Floats  # [second]
    prefill: Floats
    inlet_c: Floats
    air: Floats


def draw(ranges: Ranges, seeds: tuple[int, ...], seconds: int) -> Trial:
    """[second, seed, 1]: a single GPU for each seed; a seed is the same plant whoever draws it."""
    plants = [_plant(ranges, np.random.default_rng((seed, 41)), seconds) for seed in seeds]
    die_sink, sink_air, die_heat, sink_heat, least = np.array([plant.constants for plant in plants]).T[:, :, None]
    paths = Paths(
        H100.die_j_per_k * die_heat,
        H100.sink_j_per_k * sink_heat,
        H100.die_sink_k_per_w * die_sink,
        H100.sink_air_k_per_w * sink_air,
    )
    rng = np.random.default_rng((*seeds, 43))
    sensors = SensorKind(temp_sd_c=rng.uniform(*ranges.temp_sd_c), power_sd=rng.uniform(*ranges.power_sd))

    def fans(watts: Floats) -> Floats:
        found: Floats = least + (1.0 - least) * np.clip(watts / H100.prefill_w, 0.0, 1.0)
        return found

    def column(name: str) -> Floats:
        return np.stack([getattr(plant, name) for plant in plants], axis=1)[:, :, None]

    return Trial(
        H100, paths, column("work"), column("prefill"), column("inlet_c"), column("air"), fans, sensors, seeds[0]
    )


def _plant(ranges: Ranges, rng: np.random.Generator, seconds: int) -> _Plant:
    t = np.arange(seconds)
    constants = (
        rng.uniform(*ranges.die_sink),
        rng.uniform(*ranges.sink_air),
        rng.uniform(*ranges.die_heat),
        rng.uniform(*ranges.sink_heat),
        rng.uniform(*ranges.fans_least),
    )
    minutes = np.repeat(rng.uniform(0.85, 1.15, seconds // 60 + 1), 60)[:seconds]
    load = rng.uniform(*ranges.load) + 0.12 * np.sin(2 * np.pi * t / 900 + rng.uniform(0, 2 * np.pi))
    load = load + 0.35 * (rng.random(seconds) < 0.02)
    work = np.maximum(0.0, rng.normal(load * minutes, 0.15))
    turn, phase = 2 * np.pi * t / rng.uniform(*ranges.prefill_period_s), rng.uniform(0, 2 * np.pi)
    prefill = np.clip(rng.uniform(*ranges.prefill) + rng.uniform(*ranges.prefill_swing) * np.sin(turn + phase), 0, 1)
    swing = rng.uniform(*ranges.inlet_swing_k) * np.sin(2 * np.pi * t / 3_600 + rng.uniform(0, 2 * np.pi))
    inlet = rng.uniform(*ranges.inlet_c) + swing
    air = np.ones(seconds)
    if rng.random() < ranges.incident_share:
        begin = int(rng.uniform(0.15, 0.6) * seconds)
        during = (t >= begin) & (t < begin + rng.uniform(*ranges.incident_s))
        air = np.where(during, rng.uniform(*ranges.incident_air), 1.0)
        inlet = inlet + rng.uniform(*ranges.incident_k) * during
    return _Plant(constants, work, prefill, inlet, air)
