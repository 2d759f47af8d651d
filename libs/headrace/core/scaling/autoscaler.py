"""The autoscaler: events in, decisions out. It measures load, sizes and attainment, and asks a policy at each look.

`handle(event, now_s) -> [Scale]`; live services and the simulator drive the same object.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.core.scaling.base import Costs, PoolSight, Scaler, Sight, Target
from headrace.core.scaling.events import Answered, Arrived, Count, Ended, Event, Look, Paced, Scale, Started
from headrace.core.scaling.grants import granted
from headrace.core.scaling.windows import BUCKET_S, Mean, Window
from headrace.core.types import StageName

SHORT_S = 30.0  # [I] of ModServe's early trigger, whose window is not published
BEFORE_S = 60.0  # [I] that the short window is held against for a trend
MEMORY = 500  # [I] requests that mean sizes are of
OUTPUT_TOKENS = 200  # [I] of an answer, until one has ended: between the Azure LMM trace's median and mean
STARTS = 8  # [I] that the time of a start is the mean of
BUSY_S_LEAST = 1e-9  # of a request at an instance that costs nothing


@dataclass(frozen=True, slots=True)
class ScaledPool:
    name: str
    stages: tuple[StageName, ...]
    models: tuple[str, ...]  # that its instances serve, or may load
    gpus: int  # of each instance
    start_s: float  # until a start has been measured
    costs: Costs  # until workers have told their pace
    least: int = 1
    most: int = 1
    modalities: tuple[str, ...] = ()  # that it encodes
    capacity_per_s: float = 0.0  # measured; 0: it follows from the costs

    @property
    def generates(self) -> bool:
        return "prefill" in self.stages or "decode" in self.stages


@dataclass(frozen=True, slots=True)
class Limits:
    gpus_max: int
    look_s: float = 5.0  # [I] between two looks
    long_s: float = 300.0  # [I] the long window is ModServe's epoch

    @property
    def short_s(self) -> float:
        """The long window holds the other two: where it is a test's, they are shorter."""
        return min(SHORT_S, self.long_s * SHORT_S / (SHORT_S + BEFORE_S))

    @property
    def before_s(self) -> float:
        return min(BEFORE_S, self.long_s * BEFORE_S / (SHORT_S + BEFORE_S))


@dataclass(slots=True)
class _Measured:
    """Of one pool."""

    load: Window
    start_s: Mean
    costs: Costs
    full: Costs  # at full speed
    prompt_tokens: Mean = field(default_factory=lambda: Mean(0.0, MEMORY))
    media_tokens: Mean = field(default_factory=lambda: Mean(0.0, MEMORY))
    with_media_tokens: Mean = field(default_factory=lambda: Mean(0.0, MEMORY))  # of requests that have some
    output_tokens: Mean = field(default_factory=lambda: Mean(OUTPUT_TOKENS, MEMORY))


class Autoscaler:
    def __init__(self, policy: Scaler, pools: tuple[ScaledPool, ...], limits: Limits, now_s: float) -> None:
        assert sum([pool.least * pool.gpus for pool in pools]) <= limits.gpus_max, "the pools' least exceeds the GPUs"
        self._policy = policy
        self._pools = pools
        self._limits = limits
        bucket_s = BUCKET_S * limits.short_s / SHORT_S
        self._measured = {
            pool.name: _Measured(
                Window(limits.long_s, now_s, bucket_s), Mean(pool.start_s, STARTS), pool.costs, pool.costs
            )
            for pool in pools
        }
        self._in_time = Window(limits.short_s, now_s, bucket_s)
        self._answered = Window(limits.short_s, now_s, bucket_s)
        self._counts: Mapping[str, Count] = {}
        self.last: tuple[tuple[PoolSight, Target], ...] = ()  # what was seen at the last look, and what was decided

    def follow(self, policy: Scaler) -> None:
        """From the next look on. What has been measured stays."""
        self._policy = policy

    def handle(self, event: Event, now_s: float) -> list[Scale]:
        if isinstance(event, Arrived):
            self._arrived(event, now_s)
        elif isinstance(event, Answered):
            self._answered.add(1.0, now_s)
            self._in_time.add(float(event.in_time), now_s)
        elif isinstance(event, Ended):
            for pool in self._pools:
                if event.model in pool.models and event.output_tokens:
                    self._measured[pool.name].output_tokens.add(event.output_tokens)
        elif isinstance(event, Started):
            self._measured[event.pool].start_s.add(event.took_s)
        elif isinstance(event, Paced):
            measured = self._measured[event.pool]
            measured.costs, measured.full = event.costs, event.full or event.costs
        else:
            return self._look(event, now_s)
        return []

    def nobody_for(self, event: Arrived) -> bool:
        """A stage of this request had no instance, nor one that starts, at the last look: look again at once."""
        return any(
            not sum([self._current(pool) for pool in takers])
            for stage in ("encode", "prefill", "decode")
            if (takers := [pool for pool in self._pools if stage in pool.stages and _amount(pool, event)])
        )

    def _arrived(self, event: Arrived, now_s: float) -> None:
        """Pools with the same work share it by what they have."""
        amounts = {pool.name: amount for pool in self._pools if (amount := _amount(pool, event))}
        takers = [pool for pool in self._pools if pool.name in amounts]
        for pool in takers:
            measured = self._measured[pool.name]
            media = sum([tokens for modality, tokens in event.media])
            measured.prompt_tokens.add(event.prompt_tokens)
            measured.media_tokens.add(media)
            if media:
                measured.with_media_tokens.add(media)
            alike = [other for other in takers if other.stages == pool.stages]
            if share := self._share(pool, alike):
                measured.load.add(amounts[pool.name] * share, now_s)

    def _share(self, pool: ScaledPool, alike: list[ScaledPool]) -> float:
        if len(alike) == 1:
            return 1.0
        speeds = {other.name: self._current(other) * self._capacity(other) for other in alike}
        total = sum(speeds.values())
        return speeds[pool.name] / total if total else 1.0 / len(alike)

    def _current(self, pool: ScaledPool) -> int:
        count = self._counts.get(pool.name, Count())
        return count.ready + count.starting

    def _look(self, event: Look, now_s: float) -> list[Scale]:
        self._counts = event.pools
        sight = self._sight(event, now_s)
        targets = granted(sight.pools, self._policy.targets(sight, now_s), self._limits.gpus_max)
        self.last = tuple(zip(sight.pools, targets, strict=True))
        return [
            Scale(pool.name, pool.current, target.instances, target.reason)
            for pool, target in self.last
            if target.instances != pool.current
        ]

    def _sight(self, event: Look, now_s: float) -> Sight:
        limits = self._limits
        answered, in_time = (window.over(limits.short_s, now_s) for window in (self._answered, self._in_time))
        return Sight(
            pools=tuple([self._see(pool, event, now_s) for pool in self._pools]),
            short_s=limits.short_s,
            before_s=limits.before_s,
            long_s=limits.long_s,
            look_s=limits.look_s,
            attainment=in_time.per_s / answered.per_s if answered.requests else 1.0,
            answered=answered.requests,
            waits=event.waits,
        )

    def _see(self, pool: ScaledPool, event: Look, now_s: float) -> PoolSight:
        limits, measured = self._limits, self._measured[pool.name]
        count, load = event.pools.get(pool.name, Count()), measured.load
        return PoolSight(
            name=pool.name,
            stages=pool.stages,
            models=pool.models,
            modalities=pool.modalities,
            gpus=pool.gpus,
            least=pool.least,
            most=pool.most,
            start_s=measured.start_s.value,
            ready=count.ready,
            starting=count.starting,
            draining=count.draining,
            short=load.over(limits.short_s, now_s),
            before=load.over(limits.before_s, now_s, limits.short_s),
            long=load.over(limits.long_s, now_s),
            capacity_per_s=self._capacity(pool),
            backlog=self._backlog(pool, event, now_s),
        )

    def _capacity(self, pool: ScaledPool) -> float:
        """In the pool's unit: what one instance does a second with requests of the mean sizes of late."""
        mean = self._measured[pool.name]
        if not pool.capacity_per_s:
            return self._rate(pool, mean, mean.costs)
        if mean.costs == mean.full:
            return pool.capacity_per_s
        return pool.capacity_per_s * self._rate(pool, mean, mean.costs) / self._rate(pool, mean, mean.full)

    def _rate(self, pool: ScaledPool, mean: _Measured, costs: Costs) -> float:
        if not pool.generates:
            return 1.0 / max(BUSY_S_LEAST, costs.encode_token_s)
        prompt_tokens, media_tokens = max(1.0, mean.prompt_tokens.value), mean.media_tokens.value
        busy_s = media_tokens * costs.encode_token_s if "encode" in pool.stages else 0.0
        if "prefill" in pool.stages:
            busy_s += prompt_tokens * costs.prefill_token_s + media_tokens * costs.cross_token_s
        if "decode" in pool.stages:
            busy_s += mean.output_tokens.value * costs.decode_token_s
        return prompt_tokens / max(BUSY_S_LEAST, busy_s)

    def _backlog(self, pool: ScaledPool, event: Look, now_s: float) -> float:
        """Requests that wait, times their mean size. The views count those at encoders for all models together:
        each pool is taken to have its share of the load."""
        mean = self._measured[pool.name]
        if pool.generates:
            waiting = sum([(event.waiting or {}).get(model, 0) for model in pool.models])
            return waiting * mean.prompt_tokens.value
        long_s = self._limits.long_s
        own = mean.load.over(long_s, now_s).per_s
        encoders = [other for other in self._pools if not other.generates]
        total = sum([self._measured[other.name].load.over(long_s, now_s).per_s for other in encoders])
        return event.at_encoders * mean.with_media_tokens.value * own / total if total else 0.0


def _amount(pool: ScaledPool, event: Arrived) -> int:
    """Of the pool's unit; 0: the request does not come to it."""
    if event.model not in pool.models:
        return 0
    if pool.generates:
        return event.prompt_tokens
    return sum([tokens for modality, tokens in event.media if modality in pool.modalities])
