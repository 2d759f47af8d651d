"""The power law of a GPU: P = context + (full - context) x speed^exponent, where `full` is what its work draws at full
speed. Arrays of any one shape, or numbers; watts of one GPU, speeds as shares of full speed.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def drawn_w(full_w: Any, speed: Any, *, context_w: Any, exponent: Any) -> Floats:
    found: Floats = context_w + np.maximum(full_w - context_w, 0.0) * np.power(speed, exponent)
    return found


def speed_under(cap_w: Any, full_w: Any, *, context_w: Any, exponent: Any, least: Any) -> Floats:
    """The highest speed, down to `least`, at which it keeps within the cap."""
    left = np.clip((cap_w - context_w) / np.maximum(full_w - context_w, 1e-9), 0.0, 1.0)
    found: Floats = np.clip(left ** (1.0 / exponent), least, 1.0)
    return found


def decode_rate(speed: Any, free_speed: Any) -> Floats:
    """Decode waits for memory: nothing is lost above the free speed, below it in proportion."""
    found: Floats = np.minimum(1.0, speed / free_speed)
    return found
