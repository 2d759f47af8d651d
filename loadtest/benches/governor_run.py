"""The governor bench's runs on one live mesh, one after the other: what was asked of it, and what was seen.

A governed run: warm-up, the row's demand as its budget, 70 % of it, all of it, a UPS lost, all again; of one row of all
workers, or of a row that has one worker of each stage. A control has no governor: caps that are said once take its
place, and stay.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from headrace.cli.supervisor import Mesh
from headrace.rehearsal import meter
from headrace.rehearsal.attainable import Shared
from headrace.rehearsal.caps import PermanentCaps
from headrace.rehearsal.load import DRAIN_S, Asked
from headrace.rehearsal.stage import Moment, Stage
from headrace.rehearsal.watch import Reading

CUT = 0.7  # of the row's demand
# One worker of each stage; its watts leave it about three quarters of its speed, so that all together can still do the
# work if they share it as they are fast.
ROW, ROW_WORKERS, ROW_CUT = "row-a", ("encoder-0", "prefill-0", "decode-0"), 0.55
HEARD_S = 1.2  # devices report once a second: what was so long ago is known of all


@dataclass(frozen=True, slots=True)
class Plan:
    """Seconds of each phase; 0 leaves it out."""

    warm_s: float
    before_s: float
    cut_s: float
    back_s: float
    ups_s: float = 0.0
    clear_s: float = 0.0
    drain_s: float = DRAIN_S


@dataclass(frozen=True, slots=True)
class Run:
    """moments: before, cut, back, ups, clear and end, those that there were."""

    demand_w: float  # mean, before any budget
    budget_w: float  # of the cut
    moments: tuple[Moment, ...]
    asked: Sequence[Asked]
    readings: Mapping[str, Sequence[Reading]]  # by worker and device
    stages: Mapping[str, tuple[str, ...]]
    workers: tuple[str, ...] = ()  # of the row; empty: all

    @property
    def row_readings(self) -> Mapping[str, Sequence[Reading]]:
        return of_workers(self.readings, self.workers)

    def at_s(self, name: str) -> float:
        return next(moment.at_s for moment in self.moments if moment.name == name)

    def limit_w(self, name: str) -> float:
        return next(moment.limit_w for moment in self.moments if moment.name == name)

    def has(self, name: str) -> bool:
        return any(moment.name == name for moment in self.moments)

    def until_s(self, name: str) -> float:
        """When the next moment came."""
        return min(moment.at_s for moment in self.moments if moment.at_s > self.at_s(name))


def of_workers(readings: Mapping[str, Sequence[Reading]], workers: tuple[str, ...]) -> Mapping[str, Sequence[Reading]]:
    """Empty: of all."""
    if not workers:
        return readings
    return {name: rows for name, rows in readings.items() if name.split("/", 1)[0] in workers}


async def governed(stage: Stage, plan: Plan) -> Run:
    """The governor is there and has no budget."""
    demand_w = await _warm(stage, plan)
    await _step(stage, plan, demand_w, CUT * demand_w)
    if plan.ups_s:
        await stage.emergency("ups", "ups")
        await asyncio.sleep(plan.ups_s)
        await stage.clear("clear")
        await asyncio.sleep(plan.clear_s)
    run = await _end(stage, plan, demand_w, CUT * demand_w)
    await stage.budget("none", 0.0)
    return run


async def one_row(stage: Stage, plan: Plan) -> Run:
    """The same of ROW alone."""
    demand_w = await _warm(stage, plan, ROW_WORKERS)
    await _step(stage, plan, demand_w, ROW_CUT * demand_w, ROW)
    run = await _end(stage, plan, demand_w, ROW_CUT * demand_w)
    await stage.budget("none", 0.0, ROW)
    return replace(run, workers=ROW_WORKERS)


async def _step(stage: Stage, plan: Plan, demand_w: float, budget_w: float, row: str = "") -> None:
    await stage.budget("before", demand_w, row)
    await asyncio.sleep(plan.before_s)
    await stage.budget("cut", budget_w, row)
    await asyncio.sleep(plan.cut_s)
    await stage.budget("back", demand_w, row)
    await asyncio.sleep(plan.back_s)


async def capped(stage: Stage, plan: Plan, shared: Shared, budget_w: float, *, lifted: bool) -> Run:
    """No governor is there. lifted: whether the caps go at the step back, as those of somebody who planned it would."""
    demand_w = await _warm(stage, plan)
    stage.mark("before")
    await asyncio.sleep(plan.before_s)
    caps = PermanentCaps(stage.bus, stage.watch, shared)
    await caps.begin()
    try:
        stage.mark("cut", budget_w)
        await asyncio.sleep(plan.cut_s)
        if lifted:
            await caps.end()
        stage.mark("back")
        await asyncio.sleep(plan.back_s)
        return await _end(stage, plan, demand_w, budget_w)
    finally:
        await caps.end()


async def _warm(stage: Stage, plan: Plan, workers: tuple[str, ...] = ()) -> float:
    """Begins the load; returns the row's mean watts in the second half of the warm-up."""
    stage.moments.clear()
    stage.begin_load()
    stage.mark("warm")
    async with asyncio.TaskGroup() as both:
        both.create_task(stage.heard())
        both.create_task(asyncio.sleep(plan.warm_s))
    readings = of_workers(stage.watch.readings, workers)
    until_s = meter.told_until_s(readings)
    return meter.mean_w(readings, until_s - plan.warm_s / 2.0, until_s)


async def _end(stage: Stage, plan: Plan, demand_w: float, budget_w: float) -> Run:
    stage.mark("end")
    await asyncio.sleep(HEARD_S)
    asked = await stage.end_load(plan.drain_s)
    readings = {name: tuple(rows) for name, rows in stage.watch.readings.items()}
    return Run(demand_w, budget_w, tuple(stage.moments), asked, readings, dict(stage.watch.stages))


async def couple(mesh: Mesh, coupling: str) -> None:
    """Starts the queue manager again, with the governor's word or without."""
    await mesh.restart("qm-0", {"HEADRACE_GOVERNOR_COUPLING": coupling})
    await mesh.until_servable()
