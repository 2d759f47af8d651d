"""A steady load, beside which many requests are asked and left all at once: HTTP connections cut, gRPC calls cancelled,
while they wait, in prefill and in the middle of their answers. Again and again.

The steady load comes at an even beat, so that what changes is the mesh.
"""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

import grpc

from headrace.client import operator
from headrace.workload.arrival import Arrival
from headrace.workload.scenario import Scenario
from loadtest.drills.gun import Gun
from loadtest.drills.held import held, standing
from loadtest.drills.overload import Say, empty, saturation
from loadtest.drills.shots import Maker, Ready, Shot
from loadtest.drills.target import Target
from loadtest.drills.watch import Watch

THERE_S_MAX = 60.0  # until all of a storm have been let in
HOLD_S = 1.5  # after that, so that some are in the middle of their answers
LOOK_S = 0.1
TOGETHER, APART_S = 25, 0.02  # so many are asked at once, and then the steady load has its turn
FREE_S_MAX = 10.0


@dataclass(slots=True)
class Storm:
    """Times are since the steady load's beginning."""

    asked: int
    there: int  # let in when they were left
    streaming: int  # of those that had a token
    http: int
    left_s: float = 0.0  # the moment
    leaving_s: float = 0.0  # this client took so long to leave them all
    gone_s: float = 0.0  # after that the queue manager had none of them; inf: it still has

    @property
    def over_s(self) -> float:
        """When the last of them was left."""
        return self.left_s + self.leaving_s


@dataclass(slots=True)
class Stormy:
    scenario: Scenario
    saturation_rps: float
    rate_rps: float = 0.0
    steady: list[Shot] = field(default_factory=list)
    storms: list[Storm] = field(default_factory=list)
    held: Mapping[str, int] = field(default_factory=dict)  # when all is over; wanted: nothing
    before: Mapping[str, int] = field(default_factory=dict)
    after: Mapping[str, int] = field(default_factory=dict)
    free_s: float = 0.0  # after the last answer nothing was held any more; inf: something still is
    watch: Watch | None = None


async def abort_storm(scenario: Scenario, target: Target, say: Say) -> Stormy:
    """Raises HeadraceError, grpc.RpcError, ScenarioError: the mesh cannot be asked this."""
    drill = scenario.drill
    assert drill is not None
    maker = await Maker.of(scenario, target)
    async with Gun(target) as gun:
        found = Stormy(scenario, drill.saturation_rps or await saturation(maker, gun, target))
        say(f"saturation: {found.saturation_rps:.1f} requests/s")
    asked = [[_asked(maker, number, index) for index in range(drill.aborts)] for number in range(drill.storms)]
    await empty(target, scenario.drain_s)
    found.before = await standing(target)
    found.rate_rps = drill.steady * found.saturation_rps
    async with Watch(target) as found.watch, Gun(target) as gun:
        steady = asyncio.create_task(_steady(found, maker, gun))
        began_s = time.monotonic()
        for number, ready in enumerate(asked):
            await asyncio.sleep(scenario.duration_s)
            found.storms.append(await _storm(ready, drill.abort_class, target, began_s))
            last = found.storms[-1]
            say(
                f"storm {number + 1}: {last.there} there, {last.streaming} of them streaming, left within "
                f"{last.leaving_s:.2f} s, gone after {last.gone_s:.2f} s"
            )
        await asyncio.sleep(scenario.duration_s)
        steady.cancel()
        found.steady = await steady
    await _afterwards(found, target)
    return found


async def _steady(found: Stormy, maker: Maker, gun: Gun) -> list[Shot]:
    """At an even beat until it is cancelled; then what is under way ends."""
    shots, running, began_s = list[Shot](), list[asyncio.Task[Shot]](), time.monotonic()
    arrivals = maker.ready(found.rate_rps, found.scenario.duration_s, found.scenario.seed)
    try:
        number = 0
        while True:
            one = replace(arrivals[number % len(arrivals)], at_s=number / found.rate_rps)
            number += 1
            await asyncio.sleep(max(0.0, began_s + one.at_s - time.monotonic()))
            shots.append(Shot(one.at_s, one.slo_class, one.target_s, one.via))
            running.append(asyncio.create_task(gun.ask(one, began_s, shot=shots[-1])))
    except asyncio.CancelledError:
        await asyncio.gather(*running)
    return shots


async def _storm(ready: Sequence[Ready], slo_class: str, target: Target, began_s: float) -> Storm:
    shots, running = list[Shot](), list[asyncio.Task[Shot]]()
    async with Gun(target) as gun:
        for number, one in enumerate(ready):
            shots.append(Shot(0.0, one.slo_class, one.target_s, one.via))
            running.append(asyncio.create_task(gun.ask(one, began_s, shot=shots[-1])))
            if number % TOGETHER == TOGETHER - 1:
                await asyncio.sleep(APART_S)
        there = await _until_there(target, slo_class, shots)
        streaming = sum(shot.tokens > 0 and math.isnan(shot.end_s) for shot in shots)
        storm = Storm(len(ready), there, streaming, sum(one.via == "http" for one in ready))
        storm.left_s = time.monotonic() - began_s
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        storm.leaving_s = time.monotonic() - began_s - storm.left_s
    storm.gone_s = await _until_gone(target, slo_class)
    return storm


def _asked(maker: Maker, number: int, index: int) -> Ready:
    drill = maker.scenario.drill
    assert drill is not None
    arrival = Arrival(0.0, 50 + 7 * (index % 20), drill.abort_tokens, slo_class=drill.abort_class)
    return maker.one(arrival, Random(f"{maker.scenario.seed} {number} {index}"))


async def _until_there(target: Target, slo_class: str, shots: list[Shot]) -> int:
    """How many of them the queue manager has; when all are there, or have ended, or the time is over."""
    until_s, there = time.monotonic() + THERE_S_MAX, 0.0
    while time.monotonic() < until_s:
        there = await _count(target, slo_class)
        ended = sum(not math.isnan(shot.end_s) for shot in shots)
        if there + ended >= len(shots):
            await asyncio.sleep(HOLD_S)
            now = await _count(target, slo_class)
            return int(there if math.isnan(now) else now)
        await asyncio.sleep(LOOK_S)
    return 0 if math.isnan(there) else int(there)


async def _until_gone(target: Target, slo_class: str) -> float:
    began_s = time.monotonic()
    while (passed_s := time.monotonic() - began_s) < FREE_S_MAX:
        if await _count(target, slo_class) == 0:
            return passed_s
        await asyncio.sleep(LOOK_S / 2)
    return float("inf")


async def _count(target: Target, slo_class: str) -> float:
    """nan: the queue manager is too busy to say."""
    try:
        cell = await operator.cell_status(target.state.services["qm-0"], door=target.inner)
    except grpc.RpcError:
        return math.nan
    return sum(told.queued + told.running for told in cell.classes if told.slo_class == slo_class)


async def _afterwards(found: Stormy, target: Target) -> None:
    """What is held once nobody asks anything."""
    began_s = time.monotonic()
    while (passed_s := time.monotonic() - began_s) < FREE_S_MAX:
        found.held = await held(target)
        if not found.held:
            found.free_s = passed_s
            break
        await asyncio.sleep(LOOK_S)
    else:
        found.free_s = float("inf")
    await asyncio.sleep(1.0)  # closed connections leave their processes
    found.after = await standing(target)
