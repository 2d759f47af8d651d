"""ModServe's autoscaling: load over capacity, every five minutes, and at once when promises are broken.

arXiv 2502.00937, section 4.3. Hysteresis is not specified there, and none is here.
"""

import math
from dataclasses import dataclass, field

from headrace.core.scaling.base import PoolSight, Sight, Target


@dataclass(slots=True)
class Published:
    name: str = "published"
    epoch_s: float = 300.0  # [P]
    attainment_least: float = 0.99  # [P]
    # [I] MC is the load at which the 99th percentile keeps the SLO [P]: so much of the greatest throughput.
    utilisation: float = 0.8
    _next_s: float | None = field(default=None, init=False)

    def targets(self, sight: Sight, now_s: float) -> list[Target]:
        """The long window counts at an epoch, the short one [I] in between."""
        if self._next_s is None:
            self._next_s = now_s + self.epoch_s
        if now_s >= self._next_s:
            self._next_s = now_s + self.epoch_s
            return [self._at_epoch(pool) for pool in sight.pools]
        if sight.attainment < self.attainment_least:
            return [self._at_once(pool, sight) for pool in sight.pools]
        return [Target(pool.name, pool.current, "until the next epoch") for pool in sight.pools]

    def _at_epoch(self, pool: PoolSight) -> Target:
        return Target(pool.name, self._replicas(pool, pool.long.per_s), f"epoch: {self._words(pool, pool.long.per_s)}")

    def _at_once(self, pool: PoolSight, sight: Sight) -> Target:
        """Upwards alone."""
        replicas = max(pool.current, self._replicas(pool, pool.short.per_s))
        why = f"attainment {sight.attainment:.3f}: {self._words(pool, pool.short.per_s)}"
        return Target(pool.name, replicas, why)

    def _replicas(self, pool: PoolSight, per_s: float) -> int:
        return math.ceil(per_s / (self.utilisation * pool.capacity_per_s))

    def _words(self, pool: PoolSight, per_s: float) -> str:
        return f"{per_s:.0f} tokens/s over {self.utilisation * pool.capacity_per_s:.0f} an instance"
