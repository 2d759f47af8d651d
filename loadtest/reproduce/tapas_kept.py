"""What a TAPAS week leaves behind: sums, and the figures made of them."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(slots=True)
class Kept:
    """Sums over a run."""

    t_max_c: float = 0.0
    t_max_above_inlet_c: float = 0.0
    row_peak_w: float = 0.0
    row_minutes: int = 0
    over_row: int = 0
    gpu_minutes: int = 0
    over_temp: int = 0
    thermal_events: int = 0
    power_events: int = 0
    asked: float = 0.0
    served: float = 0.0
    quality: float = 0.0
    opaque_asked: float = 0.0
    opaque_served: float = 0.0
    energy_j: float = 0.0
    serving_j: float = 0.0  # of serving instances' servers
    tokens: float = 0.0  # that they answered with
    capped_minutes: int = 0
    reloads: int = 0
    gpu_p99_c: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        return {
            "t_max_c": self.t_max_c,
            "t_p99_c": float(np.mean(self.gpu_p99_c)),
            "t_max_above_inlet_c": self.t_max_above_inlet_c,
            "row_power_peak_w": self.row_peak_w,
            "over_row_share": self.over_row / self.row_minutes,
            "over_temp_share": self.over_temp / self.gpu_minutes,
            "thermal_events": float(self.thermal_events),
            "power_events": float(self.power_events),
            "served_share": self.served / self.asked,
            "opaque_served_share": self.opaque_served / self.opaque_asked,
            "quality": self.quality / self.served,
            "capped_share": self.capped_minutes / self.row_minutes,
            "joules": self.energy_j,
            "joules_per_token": self.serving_j / self.tokens,
            "joules_per_unit": self.energy_j / (self.served + self.opaque_served),
            "reloads": float(self.reloads),
        }
