"""The last resort before opaque tenants: fewer requests at once, where all devices at their least draw too much."""

from dataclasses import dataclass, field

import numpy as np

from headrace.core.power.fleet import Floats

RISE = 0.2  # of all slots, a second: admission comes back slowly
DEEPER = 0.02  # a second, while the row still draws too much
TOLERATED = 1.005  # of the limit: sensors are noisy


@dataclass(slots=True)
class Admission:
    """Arrays over rows; share of the slots that may be used."""

    share: Floats = field(default_factory=lambda: np.empty(0))
    less: Floats = field(default_factory=lambda: np.empty(0))  # learnt: what was promised was not enough

    def step(self, limit_w: Floats, least_w: Floats, base_w: Floats, power_w: Floats, passed_s: float) -> Floats:
        """least_w: if all gave way as far as they can. base_w: the same if nobody computed. power_w: measured."""
        if len(self.share) != len(limit_w):
            self.share, self.less = np.ones(len(limit_w)), np.zeros(len(limit_w))
        span = np.maximum(least_w - base_w, 1e-9)
        with np.errstate(invalid="ignore"):
            promised = np.where(least_w > limit_w, np.clip((limit_w - base_w) / span, 0.0, 1.0), 1.0)
        short = promised < 1.0
        over = short & (power_w > TOLERATED * limit_w)
        moved = self.less + np.where(over, DEEPER, -DEEPER) * passed_s
        self.less = np.where(short, np.clip(moved, 0.0, 1.0), 0.0)
        wanted = np.maximum(promised - self.less, 0.0)
        self.share = np.where(wanted < self.share, wanted, np.minimum(wanted, self.share + RISE * passed_s))
        return self.share
