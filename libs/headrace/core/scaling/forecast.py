"""Our autoscaling: the load as it will be when an instance would be ready, with a bound of error, and what waits.

The long window's rate counts until the short one's differs by more than chance; then the short one, and its trend if
that is no chance either. What waits is projected to the moment at which help could come. Up at once, down when a lower
need has lasted; a pool without load goes down to its least, to zero where that is allowed.
"""

import math
from collections import deque
from dataclasses import dataclass, field

from headrace.core.scaling.base import PoolSight, Sight, Target
from headrace.core.scaling.windows import Mean

SOMEBODY = 0.5  # [I] instances that somebody who waits needs at least
ERROR_MEMORY = 720  # [I] forecasts whose error is remembered


@dataclass(slots=True)
class _Memory:
    """Of one pool."""

    needs: deque[tuple[float, float]] = field(default_factory=deque)  # when, instances; falling, the first is the peak
    due: deque[tuple[float, float]] = field(default_factory=deque)  # when, what load was forecast for then
    # Mean square of what forecasts fell short, as a share: over an hour [I], so that a single step is no habit.
    error2: Mean = field(default_factory=lambda: Mean(0.0, ERROR_MEMORY))

    def peak(self, need: float, now_s: float, settle_s: float) -> float:
        """The greatest need of the last `settle_s`."""
        while self.needs and self.needs[-1][1] <= need:
            self.needs.pop()
        self.needs.append((now_s, need))
        while self.needs[0][0] < now_s - settle_s:
            self.needs.popleft()
        return self.needs[0][1]

    def learn(self, pool: PoolSight, now_s: float) -> None:
        """Forecasts that are due are held against what came: by how much that was more, beyond chance."""
        while self.due and self.due[0][0] <= now_s:
            forecast = self.due.popleft()[1]
            if forecast > 0.0:
                off = max(0.0, max(0.0, pool.short.per_s - forecast) ** 2 - pool.short.sd_per_s**2)
                self.error2.add(min(1.0, off / forecast**2))


@dataclass(slots=True)
class Forecast:
    """All constants are ours [I], chosen on loadtest/scenarios/elastic.toml."""

    name: str = "headrace"
    utilisation: float = 0.8  # as Published: what is beyond is queueing
    change_z: float = 3.0  # standard deviations between the windows: a change and no chance
    load_z: float = 1.64  # of the load that instances are kept for: 95 of 100 times it is less
    growth_most: float = 2.0  # a trend is believed up to so many times the load
    wait_share: float = 0.5  # of a target: whoever waits longer makes instances needed
    band: float = 0.1  # down only if the peak would fit with so much to spare
    settle_s: float = 120.0  # ... and that for so long at least,
    settle_starts: float = 2.0  # ... or for so many times what it takes to start one
    _memory: dict[str, _Memory] = field(default_factory=dict, init=False)

    def targets(self, sight: Sight, now_s: float) -> list[Target]:
        return [self._target(pool, sight, now_s) for pool in sight.pools]

    def _target(self, pool: PoolSight, sight: Sight, now_s: float) -> Target:
        memory = self._memory.get(pool.name)
        if memory is None:  # what there is was needed until something else is known
            memory = self._memory[pool.name] = _Memory(deque([(now_s, float(pool.current))]))
        memory.learn(pool, now_s)
        load, high = self._load(pool, sight, memory, now_s)
        waiting = self._waiting(pool, sight, load)
        clear_s = max(pool.start_s, _tightest_s(sight))
        need = high / (self.utilisation * pool.capacity_per_s) + waiting / (clear_s * pool.capacity_per_s)
        if pool.backlog:
            need = max(need, SOMEBODY)
        peak = memory.peak(need, now_s, max(self.settle_s, self.settle_starts * pool.start_s))
        words = f"{load:.0f} tokens/s expected in {pool.start_s:.0f} s, {high:.0f} at most"
        if math.ceil(need) > pool.current:
            late = f", {waiting:.0f} tokens late by then" if waiting else ""
            return Target(pool.name, math.ceil(need), f"{words}{late}; {pool.capacity_per_s:.0f} an instance")
        enough = math.ceil(peak * (1.0 + self.band))
        if enough < pool.current and not pool.starting:
            return Target(pool.name, enough, f"{words}; {peak:.1f} instances were needed at most lately")
        return Target(pool.name, pool.current, "as it is")

    def _load(self, pool: PoolSight, sight: Sight, memory: _Memory, now_s: float) -> tuple[float, float]:
        """Expected when an instance that is ordered now would serve, and its upper bound."""
        short, long = pool.short, pool.long
        off = short.per_s - long.per_s
        if abs(off) <= self.change_z * math.hypot(short.sd_per_s, long.sd_per_s):
            base, slope = long, 0.0
        else:
            base, slope = short, self._slope(pool, sight)
        horizon_s = pool.start_s + sight.look_s
        load = min(base.per_s + slope * horizon_s, self.growth_most * max(base.per_s, short.per_s))
        memory.due.append((now_s + horizon_s, load))
        return load, load + self.load_z * math.hypot(base.sd_per_s, math.sqrt(memory.error2.value) * load)

    def _slope(self, pool: PoolSight, sight: Sight) -> float:
        """Of the load, a second; 0 where it may be chance, and where the load falls."""
        rise = pool.short.per_s - pool.before.per_s
        sure = rise > self.change_z * math.hypot(pool.short.sd_per_s, pool.before.sd_per_s)
        return rise / (0.5 * (sight.short_s + sight.before_s)) if sure else 0.0

    def _waiting(self, pool: PoolSight, sight: Sight, load: float) -> float:
        """Work that will be late when help could come, if nothing is done beyond what is starting."""
        tightest_s = _tightest_s(sight)
        late = pool.backlog - self.wait_share * tightest_s * load if pool.ready else pool.backlog
        if pool.generates:
            waits = [each.expected_s - self.wait_share * each.ttft_s for each in sight.waits if each.expected_s >= 0]
            late = max(late, max(waits, default=0.0) * pool.ready * pool.capacity_per_s)
        if late <= 0.0:
            return 0.0
        return max(0.0, late + (load - pool.current * pool.capacity_per_s) * pool.start_s)


def _tightest_s(sight: Sight) -> float:
    """The strictest target; a minute [I] where there are no classes."""
    return min((each.ttft_s for each in sight.waits), default=60.0)
