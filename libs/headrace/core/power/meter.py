"""Whether caps are kept: what the devices of a row draw beside the caps that hold them. The meter has the last word.

A power limit is kept on average and not by every device alike; where a row as a whole draws more than its caps say, its
limit is lowered by as much. Slowly, in whole percent: readings are noisy.
"""

from dataclasses import dataclass, field

import numpy as np

from headrace.core.power.fleet import Fleet, Floats, Mask

KEEP = 0.95  # of the estimate, from second to second
AT_CAP = 0.9  # share of its cap from which on a device tells whether caps are kept
MOST = 0.05  # by so much a limit is lowered at most


@dataclass(slots=True)
class Meter:
    over: Floats = field(default_factory=lambda: np.empty(0))  # [row]: drawn / allowed, of devices at their caps

    def follow(self, fleet: Fleet, power_w: Floats, held_w: Floats, trusted: Mask, passed_s: float) -> Floats:
        """[row]: by what to divide its limit, 1 to 1 + MOST."""
        if len(self.over) != len(fleet.rows):
            self.over = np.ones(len(fleet.rows))
        with np.errstate(invalid="ignore"):
            telling = trusted & fleet.cappable & (held_w < fleet.most_w) & (power_w >= AT_CAP * held_w)
        allowed = fleet.by_row(np.where(telling, held_w, 0.0))
        drawn = fleet.by_row(np.where(telling, power_w, 0.0))
        ratio = np.where(allowed > 0.0, drawn / np.maximum(allowed, 1e-9), self.over)
        self.over = self.over + (1.0 - KEEP) * passed_s * (ratio - self.over)
        found: Floats = 1.0 + np.clip(np.floor(100.0 * (self.over - 1.0)) / 100.0, 0.0, MOST)
        return found
