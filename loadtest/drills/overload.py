"""More is offered than a mesh can serve: first what that is, then level after level, each in an open loop.

Goodput counts by when answers end, within the last two thirds of a level: what a full queue still answers after the
load is over would flatter it.
"""

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

from headrace.workload.scenario import Scenario, ScenarioError
from loadtest.drills.gun import Gun
from loadtest.drills.shots import Maker, Ready, Shot
from loadtest.drills.target import Target
from loadtest.drills.watch import Watch

SETTLE = 1 / 3  # of a level, not counted: a queue fills
AT_ONCE = 3  # times the mesh's slots: so many ask in a closed loop to find what it can serve
FIND_S, FIND_S_MAX = 15.0, 90.0  # ... for so long, and longer until there are enough; the first third is not counted
FIND_ANSWERS = 30
PATIENCE_S = 0.5  # between two looks at whether a mesh is empty

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Level:
    """One level: times saturation, what was offered, and what became of it."""

    times: float
    rate_rps: float
    seconds: float
    shots: tuple[Shot, ...]
    watch: Watch

    @property
    def counted(self) -> list[Shot]:
        """Those that ended in the part that counts."""
        return [shot for shot in self.shots if self.seconds * SETTLE <= shot.end_s <= self.seconds]

    @property
    def counted_s(self) -> float:
        return self.seconds * (1 - SETTLE)

    @property
    def goodput_rps(self) -> float:
        return sum(shot.good for shot in self.counted) / self.counted_s

    @property
    def answers_rps(self) -> float:
        return sum(shot.whole for shot in self.counted) / self.counted_s


@dataclass(frozen=True, slots=True)
class Overload:
    scenario: Scenario
    saturation_rps: float
    found: bool  # or said
    levels: tuple[Level, ...]


async def overload(scenario: Scenario, target: Target, say: Say) -> Overload:
    """Raises HeadraceError, grpc.RpcError, ScenarioError: the mesh cannot be asked this."""
    drill = scenario.drill
    assert drill is not None
    maker = await Maker.of(scenario, target)
    async with Gun(target) as gun:
        saturation_rps = drill.saturation_rps or await saturation(maker, gun, target)
        say(f"saturation: {saturation_rps:.1f} requests/s" + ("" if drill.saturation_rps else ", found"))
        levels = []
        for times in drill.levels:
            await empty(target, scenario.drain_s)
            levels.append(await _level(maker, gun, target, times, saturation_rps))
            last = levels[-1]
            refused = sum(shot.refused for shot in last.shots)
            say(
                f"{times:g} x = {last.rate_rps:.1f}/s: {len(last.shots)} offered, {refused} refused, "
                f"goodput {last.goodput_rps:.1f}/s"
            )
    return Overload(scenario, saturation_rps, not drill.saturation_rps, tuple(levels))


async def _level(maker: Maker, gun: Gun, target: Target, times: float, saturation_rps: float) -> Level:
    scenario = maker.scenario
    assert scenario.drill is not None
    seconds, rate_rps = scenario.duration_s, times * saturation_rps
    ready = maker.ready(rate_rps, seconds, scenario.seed)
    async with Watch(target) as watch:
        shots = await gun.fire(ready, scenario.drill.retries)
    return Level(times, rate_rps, seconds, tuple(shots), watch)


async def saturation(maker: Maker, gun: Gun, target: Target) -> float:
    """Answers a second while there is always somebody who waits, and nobody too long.

    Raises ScenarioError: too little was answered to tell.
    """
    seen = await Watch(target).once()
    ready, shots, began_s = _endless(maker), list[Shot](), time.monotonic()
    asking = max(4, AT_ONCE * seen.slots)

    async def one() -> None:
        while True:
            shots.append(await gun.ask(next(ready), began_s))

    callers = [asyncio.create_task(one()) for _ in range(asking)]
    try:
        passed_s, counted = 0.0, list[Shot]()
        while (passed_s < FIND_S or len(counted) < FIND_ANSWERS) and passed_s < FIND_S_MAX:
            await asyncio.sleep(1.0)
            passed_s = time.monotonic() - began_s
            counted = [shot for shot in shots if shot.whole and passed_s * SETTLE <= shot.end_s <= passed_s]
    finally:
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    if not counted:
        raise ScenarioError(f"{maker.scenario.name}: {asking} callers had no answer in {passed_s:.0f} s; --saturation")
    return len(counted) / (passed_s * (1 - SETTLE))


def _endless(maker: Maker) -> "itertools.chain[Ready]":
    """The scenario's requests, whatever their times."""
    return itertools.chain.from_iterable(maker.ready(100.0, 20.0, 1_000 + seed) for seed in itertools.count())


async def empty(target: Target, within_s: float) -> bool:
    """Waits until the mesh has nothing to do; False: it still has."""
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        seen = await Watch(target).once()
        if not seen.running and not any(seen.queued.values()):
            return True
        await asyncio.sleep(PATIENCE_S)
    return False
