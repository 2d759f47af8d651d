"""What is left of the limits when a UPS or an air handler is lost, and who gives way in which order.

Serving instances first: their speed, then precision, then model size; traffic goes elsewhere. Opaque tenants last, all
alike, and only as far as the row is still above its limit.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Event = Literal["ups", "ahu"]
POWER_LEFT, AIR_LEFT = 0.75, 0.90  # [R] one UPS of four lost, one air handler lost
ORDER = ("idle clocks", "decode", "prefill and encode", "admission", "opaque tenants")


@dataclass(slots=True)
class Emergency:
    """Which events hold now; several of a kind do not add up: capacity is lost once."""

    events: set[Event] = field(default_factory=set)

    def limits(self, row_w: Floats, aisle_m3s: Floats) -> tuple[Floats, Floats]:
        power = POWER_LEFT if "ups" in self.events else 1.0
        air = AIR_LEFT if "ahu" in self.events else 1.0
        return row_w * power, aisle_m3s * air


def cut(drawn_w: Floats, least_w: Floats, stages: Floats, most_w: float) -> Floats:
    """Watts that each may draw so that together they draw most_w at most, one stage of giving way after the other.

    drawn_w, least_w: of each device, now and at its slowest. stages: at which stage of ORDER each gives way, an index.
    Within a stage all give the same share of what they can. If all at their least still draw more, that is the answer:
    admission has to do the rest.
    """
    given = drawn_w.astype(np.float64).copy()
    over = float(given.sum()) - most_w
    for stage in np.unique(stages):
        if over <= 0.0:
            break
        there = stages == stage
        able = np.maximum(given[there] - least_w[there], 0.0)
        total = float(able.sum())
        if total > 0.0:
            share = min(1.0, over / total)
            given[there] -= share * able
            over -= share * total
    return given
