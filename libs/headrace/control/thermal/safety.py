"""What stands between a learnt controller and a GPU: it may slow down further, never speed up.

Whatever a network says, the speed is at most what the safe controller allows in the state that the GPU is in. What is
put off by that comes later: a day may still have its hot seconds at other times.
"""

import numpy as np
from numpy.typing import NDArray

from headrace.control.thermal.base import Floats

Mask = NDArray[np.bool_]
MARGIN = 0.05  # [I] outside the speeds of its demonstrations that a network may be before it is not believed


def filtered(said: Floats, safe: Floats, least: float, most: float) -> tuple[Floats, Mask]:
    """The speed of each GPU, and whose network is believed. Nobody is faster than `safe`.

    said: anything. least, most: of the speeds in the demonstrations."""
    with np.errstate(invalid="ignore"):
        believed: Mask = (said >= least - MARGIN) & (said <= most + MARGIN)  # nan is neither
    wanted = np.where(believed, said, safe)
    # What demonstrators never went below is as slow as a network may go, unless the safe one is slower still.
    speed: Floats = np.minimum(safe, np.maximum(wanted, least))
    return speed, believed
