"""One speed for ever, low enough for the worst day."""

import numpy as np

from headrace.control.constants import GpuKind
from headrace.control.thermal.base import Floats, Observed

SPEED = 0.85  # [I] 68 C on the bench's hot hour with the kind's own constants; eight that share their air pass 82 C [M]


class Static:
    def __init__(self, kind: GpuKind, gpus: int) -> None:
        self._speed = np.full(gpus, SPEED)

    def act(self, seen: Observed) -> Floats:
        return self._speed
