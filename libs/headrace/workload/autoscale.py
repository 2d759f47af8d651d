"""What a scenario says of autoscaling: by which policy, within which limits. How long a start takes is the pool's."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.core.scaling import SCALERS
from headrace.workload.fleet import Fleet
from headrace.workload.tables import CountOrNone, NotNegative, Positive

LEAST_EPOCH_S = 90.0  # [I] the shorter windows lie within


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """A table [autoscale.pools.NAME]."""

    min: CountOrNone = 1
    max: CountOrNone = 0  # 0: as many as there are GPUs for
    capacity: NotNegative = 0.0  # tokens a second of one instance, measured; 0: the profile's
    # Media tokens that one instance encodes in a second; 0: the profile's, with ModServe's example image. Where a tower
    # always computes as many tiles, the seconds of a token hang on how large the pictures are.
    media_capacity: NotNegative = 0.0


@dataclass(frozen=True, slots=True)
class Autoscale:
    """The table [autoscale]. A pool's `count` is what it begins with."""

    policy: str = "headrace"
    epoch_s: Positive = 300.0  # ModServe's; the long window of every policy
    look_s: Positive = 5.0  # between two looks at the fleet
    gpus_max: CountOrNone = 0  # of all pools together; 0: as many as the fleet begins with
    pools: Mapping[str, PoolLimits] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.policy not in SCALERS:
            raise ValueError(f"policy: there is no {self.policy!r}; allowed: {', '.join(SCALERS)}")
        if self.epoch_s < LEAST_EPOCH_S:
            raise ValueError(f"epoch_s: must be at least {LEAST_EPOCH_S:g}, is {self.epoch_s:g}")

    def limits(self, pool: str) -> PoolLimits:
        return self.pools.get(pool, PoolLimits())

    def check(self, fleet: Fleet) -> None:
        """Raises ValueError: limits that this fleet cannot keep."""
        most = self.gpus_max or fleet.gpus
        for name, limits in self.pools.items():
            if fleet.pool(name) is None:
                known = ", ".join(pool.name for pool in fleet.pools)
                raise ValueError(f"pools: there is no pool {name!r}; there are {known}")
            if limits.max and limits.max < limits.min:
                raise ValueError(f"pools.{name}: max ({limits.max}) must be at least min ({limits.min})")
        least = sum(self.limits(pool.name).min * pool.tp for pool in fleet.pools)
        if least > most:
            raise ValueError(f"gpus_max: the pools' min take {least} GPUs, there are {most}; raise it or lower a min")
        if fleet.gpus > most:
            raise ValueError(f"gpus_max: the fleet begins with {fleet.gpus} GPUs, there are {most}; lower its counts")
