"""What sensors say of the truth: whole degrees, noise, and now and then something worse."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.control.constants import SensorKind

Floats = NDArray[np.float64]


def temperature(kind: SensorKind, true_c: Any, rng: np.random.Generator) -> Floats:
    true = np.asarray(true_c, float)
    noisy = true + rng.normal(0.0, kind.temp_sd_c, true.shape)
    found: Floats = np.floor(noisy / kind.temp_step_c) * kind.temp_step_c
    return found


def power(kind: SensorKind, true_w: Any, rng: np.random.Generator) -> Floats:
    true = np.asarray(true_w, float)
    found: Floats = true * (1.0 + rng.normal(0.0, kind.power_sd, true.shape))
    return found
