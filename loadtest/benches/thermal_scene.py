"""A hot hour for single GPUs or servers of eight, as thermal controllers see it: all seeds at once, in one array.

After the study in which the Kalman budget was first tried: a load near what a GPU can do, with bursts and a mixture of
prefill and decode; an inlet about 30 C; for twenty minutes 5 K more and a sink that passes heat on 1.6 times worse.
Each plant is another: resistances within 0.8 and 1.35 of the kind's, which no controller is told.
"""

from dataclasses import dataclass

import numpy as np

from headrace.control import heat
from headrace.control.constants import DGX_H100, H100
from headrace.control.heat import Paths
from headrace.control.power import Floats
from headrace.control.thermal import ThermalController
from headrace.control.trial import Hour, Trial
from headrace.control.trial import run as run_trial

__all__ = ["MATCHED", "Hour", "Scene", "run", "trial"]

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


def trial(scene: Scene) -> Trial:
    told, shape = asked(scene), (scene.seconds, len(scene.seeds), scene.gpus)
    worse = [INCIDENT_RESISTANCE ** (-1.0 / heat.AIR_EXPONENT) if _incident(t) else 1.0 for t in range(scene.seconds)]
    inlet = [inlet_c(second) for second in range(scene.seconds)]
    return Trial(
        H100,
        Paths.of(H100, told.factor),
        told.work,
        told.prefill,
        np.broadcast_to(np.array(inlet)[:, None, None], shape),
        np.broadcast_to(np.array(worse)[:, None, None], shape),
        _airflow,
    )


def run(scene: Scene, controller: ThermalController) -> Hour:
    """controller: made for len(seeds) x gpus GPUs."""
    return run_trial(trial(scene), controller)


def _airflow(watts: Floats) -> Floats:
    """Of a server's fans, which follow all its GPUs; a single GPU has full air."""
    if watts.shape[1] == 1:
        return np.ones_like(watts)
    load = watts.sum(axis=1, keepdims=True) / (watts.shape[1] * H100.prefill_w)
    least = DGX_H100.airflow_least
    return np.broadcast_to(least + (1.0 - least) * load, watts.shape)
