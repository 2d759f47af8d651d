"""Aircraft, helicopters and cable-mass chains of the COMPleib collection (Leibfritz 2004), as controlgym packages them.

The matrices are in assets/control/complib.npz, made by loadtest/fitting/control_tasks.py from controlgym 1.0.0 (MIT).
controlgym's defaults: 0.1 s a step by a zero-order hold, noise and first states with variance 0.1 and mean 0.
"""

from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib import resources

import numpy as np
from scipy.signal import cont2discrete

from headrace.control.tasks.base import Floats
from headrace.control.tasks.linear import LinearTask, Model
from headrace.control.tasks.regulator import home

STEP_S, NOISE_VAR, START_VAR = 0.1, 0.1, 0.1
STEPS = 100  # controlgym runs 1,000: ten seconds are where these plants move


@dataclass(frozen=True, slots=True)
class Continuous:
    """As published, in continuous time: controlled outputs C1 x + D12 u, measured ones C x + D21 w."""

    a: Floats
    b1: Floats
    b2: Floats
    c: Floats
    c1: Floats
    d12: Floats
    d21: Floats


@lru_cache
def published(name: str) -> Continuous:
    source = resources.files("headrace") / "assets" / "control" / "complib.npz"
    with source.open("rb") as file, np.load(file) as arrays:
        return Continuous(*(arrays[f"{name}.{part}"] for part in ("A", "B1", "B2", "C", "C1", "D12", "D21")))


def discrete(plant: Continuous) -> Model:
    states, noises = plant.b1.shape
    inputs = np.hstack([plant.b1, plant.b2])
    a, b, *_ = cont2discrete((plant.a, inputs, plant.c, np.zeros((len(plant.c), inputs.shape[1]))), STEP_S)
    return Model(
        a=a,
        b=b[:, noises:],
        g=b[:, :noises],
        c=plant.c,
        d=plant.d21,
        q=plant.c1.T @ plant.c1,
        r=plant.d12.T @ plant.d12,
        s=plant.c1.T @ plant.d12,
        noise_var=NOISE_VAR,
        mean=np.zeros(states),
        cov=START_VAR * np.eye(states),
    )


def task(name: str, action_most: float, output_most: float) -> LinearTask:
    model = discrete(published(name))
    return LinearTask(name, model, partial(_start, len(model.a)), STEPS, action_most, output_most, home(model))


def _start(states: int, rng: np.random.Generator) -> Floats:
    return rng.normal(0.0, np.sqrt(START_VAR), states)


def perturbed(plant: Continuous, share: float, rng: np.random.Generator) -> Continuous:
    """A wrong model: every entry of A and of B2 off by a factor of its own, 1 + share x N(0, 1)."""
    return replace(
        plant,
        a=plant.a * (1.0 + share * rng.standard_normal(plant.a.shape)),
        b2=plant.b2 * (1.0 + share * rng.standard_normal(plant.b2.shape)),
    )
