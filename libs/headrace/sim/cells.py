"""Many cells side by side, each a world with a queue manager of its own, and doors that spread the requests over them.

The doors are the live ones' (`core/cells.py`): they know a cell by its last status, STATUS_S old at most, and by what
they have sent there since.
"""

import gc
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import numpy as np

from headrace.core.cells import SPREADS, CellSight, Door
from headrace.core.effects import Effect
from headrace.core.events import Event
from headrace.core.queue import QueueConfig, QueueCore
from headrace.sim.asked import Asked
from headrace.sim.result import FINISHED, REASONS
from headrace.sim.run import Run
from headrace.sim.world import START_S
from headrace.workload.arrival import Arrival
from headrace.workload.scenario import Scenario

STATUS_S = 0.25  # between two statuses of a live queue manager
CONNECT_S = 1.0  # until a door gives up on a cell that is gone and does not even refuse
AGAIN_S = 1.0  # until a client whose answer broke off asks again
TIMED = 16  # of so many events one is timed: looking at the clock costs a microsecond


class ClockedCore(QueueCore):
    """The queue manager's core, and the processor time that its decisions take."""

    def __init__(self, config: QueueConfig) -> None:
        super().__init__(config)
        self.events = 0
        self.took_s = array("d")  # of every TIMED-th event
        self.counted = (0, 0)  # events, and of them timed, while requests came

    def handle(self, event: Event, now_s: float) -> list[Effect]:
        self.events += 1
        if self.events % TIMED:
            return super().handle(event, now_s)
        began_s = time.thread_time()
        effects = super().handle(event, now_s)
        self.took_s.append(time.thread_time() - began_s)
        return effects

    def count(self) -> None:
        """No more requests come."""
        self.counted = (self.events, len(self.took_s))


@dataclass(frozen=True, slots=True)
class Layout:
    """How a scenario's fleet is cut, and who spreads its requests."""

    cells: int
    spread: str = "by-room"  # of core.cells.SPREADS
    doors: int = 4
    lost_cell: int = -1  # is gone from lost_at_s on, with everything that it had; -1: none
    lost_at_s: float = 0.0


@dataclass(slots=True)
class Cell:
    run: Run
    core: ClockedCore
    slots: int
    late_s: dict[int, float] = field(default_factory=dict)  # row -> seconds since its client first asked
    arrivals: dict[int, Arrival] = field(default_factory=dict)  # of rows that have not ended, where a cell will be lost
    up: bool = True
    begun: int = 0  # when it was lost: answers of which the client had seen a part
    lost: int = 0  # requests that had not ended then


def split(scenario: Scenario, cells: int) -> list[Scenario]:
    """The fleet in as equal parts as whole workers allow. Every part has some of each pool."""
    assert scenario.fleet is not None
    parts = []
    for at in range(cells):
        pools = []
        for number, pool in enumerate(scenario.fleet.pools):
            # What is over goes to the first cells from one pool, to the last from the next.
            place = at if number % 2 == 0 else cells - 1 - at
            count = pool.count // cells + (place < pool.count % cells)
            assert count, f"{pool.name}: {pool.count} workers for {cells} cells"
            pools.append(replace(pool, count=count))
        parts.append(replace(scenario, fleet=replace(scenario.fleet, pools=tuple(pools))))
    return parts


class Cells:
    """One run; `figures()` has what came of it."""

    def __init__(self, scenario: Scenario, layout: Layout, policy: str, seed: int, settings: dict[str, Any]) -> None:
        self._scenario, self._layout, self._seed = scenario, layout, seed
        self.cells = {
            f"cell-{at:02}": _cell(part, policy, seed, settings)
            for at, part in enumerate(split(scenario, layout.cells))
        }
        self.doors = [Door(SPREADS[layout.spread]) for _ in range(layout.doors)]
        self._draws = Random(seed)
        self._asked = 0
        self.unserved = 0  # no door knew a cell
        self.again: list[tuple[float, float, Arrival]] = []  # asked again: when, since when, what
        self.cpu_s = 0.0

    def go(self) -> "Cells":
        began_s = time.thread_time()
        for cell in self.cells.values():
            cell.run.prepare()
        coming = self._scenario.arrivals(self._seed)
        at_s, waiting, end_s = 0.0, next(coming, None), self._scenario.duration_s + self._scenario.drain_s
        counted = False
        while at_s < end_s and (waiting is not None or self.again or self._open()):
            self._advance(at_s)
            until_s = at_s + STATUS_S
            for asked_s, since_s, arrival in self._due(until_s):
                self._send(arrival, asked_s, since_s)
            while waiting is not None and waiting.at_s < until_s:
                self._send(waiting, waiting.at_s, waiting.at_s)
                waiting = next(coming, None)
            at_s = until_s
            if waiting is None and not counted:
                counted = True
                for cell in self.cells.values():
                    cell.core.count()
        for cell in self.cells.values():
            if cell.up:
                cell.run.finish()
        self.cpu_s = time.thread_time() - began_s
        return self

    def _open(self) -> int:
        return sum(cell.run.world.ledger.open for cell in self.cells.values() if cell.up)

    def _due(self, until_s: float) -> Iterator[tuple[float, float, Arrival]]:
        due = [each for each in self.again if each[0] < until_s]
        self.again = [each for each in self.again if each[0] >= until_s]
        yield from sorted(due, key=lambda each: each[0])

    def _advance(self, at_s: float) -> None:
        """All cells to that moment, and all doors hear of them."""
        layout = self._layout
        for number, (name, cell) in enumerate(self.cells.items()):
            if not cell.up:
                continue
            world = cell.run.world
            world.agenda.run(START_S + at_s, _never)
            if number == layout.lost_cell and at_s >= layout.lost_at_s:
                self._lose(cell, at_s)
                continue
            sight = sight_of(name, cell)
            for door in self.doors:
                door.heard(sight, at_s)

    def _send(self, arrival: Arrival, asked_s: float, since_s: float) -> None:
        """since_s: when its client first asked."""
        door = self.doors[self._asked % len(self.doors)]
        self._asked += 1
        names = door.order("", self._draws.random(), asked_s)
        if not names:
            self.unserved += 1
            self.again.append((asked_s + AGAIN_S, since_s, arrival))
            return
        cell = self.cells[names[0]]
        if not cell.up:
            door.failed(names[0], asked_s)
            self.again.append((asked_s + CONNECT_S, since_s, arrival))
            return
        door.sent(names[0])
        world = cell.run.world
        world.agenda.at(max(START_S + asked_s, world.now_s), self._ask, cell, arrival, asked_s - since_s)

    def _ask(self, cell: Cell, arrival: Arrival, late_s: float) -> None:
        asked = cell.run.ask(arrival)
        if late_s:
            cell.late_s[asked.row] = late_s
        if self._layout.lost_cell >= 0:
            cell.arrivals[asked.row] = arrival

    def _lose(self, cell: Cell, at_s: float) -> None:
        cell.up = False
        left: list[Asked] = [asked for asked in cell.run.world.asked.values() if not asked.ended]
        cell.lost, cell.begun = len(left), sum(asked.shown > 0 for asked in left)
        for asked in left:
            since_s = cell.run.world.ledger.waited_s(asked.row, START_S + at_s)
            waited_s = since_s + cell.late_s.get(asked.row, 0.0)
            self.again.append((at_s + AGAIN_S, at_s - waited_s, cell.arrivals[asked.row]))

    # --- what came of it ---

    def figures(self) -> dict[str, Any]:
        """Seconds; a request counts once, where it ended, from when its client first asked."""
        columns = [_columns(cell) for cell in self.cells.values()]
        first_s, ttft_s, met = (np.concatenate([column[at] for column in columns]) for at in range(3))
        duration_s = self._scenario.duration_s
        known = ttft_s[~np.isnan(ttft_s)]
        cells = [_told(cell, duration_s) for cell in self.cells.values()]
        return {
            "requests": len(ttft_s),
            "attainment": float(met.mean()),
            "goodput_rps": float(met.sum()) / duration_s,
            "ttft_p50_s": float(np.quantile(known, 0.5)),
            "ttft_p99_s": float(np.quantile(known, 0.99)),
            "ttft_p999_s": float(np.quantile(known, 0.999)),
            "cpu_s": self.cpu_s,
            "lost": sum(cell.lost for cell in self.cells.values()),
            "lost_begun": sum(cell.begun for cell in self.cells.values()),
            "unserved": self.unserved,
            "manager_share": [each["manager_share"] for each in cells],
            "event_us": float(np.mean([each["event_us"] for each in cells])),
            "event_p99_us": float(np.max([each["event_p99_us"] for each in cells])),
            "events_per_s": float(np.max([each["events_per_s"] for each in cells])),
            "by_cell": [each["requests"] for each in cells],
            "kept_by_s": _series(first_s, met, self._scenario.duration_s),
        }


def sight_of(name: str, cell: Cell) -> CellSight:
    """As its status would tell it."""
    classes = cell.core.view(cell.run.world.now_s).classes
    waits_s = [view.estimated_wait_s for view in classes]
    return CellSight(name, cell.slots, sum(view.queued + view.running for view in classes), max(0.0, waits_s[0]))


def _cell(scenario: Scenario, policy: str, seed: int, settings: dict[str, Any]) -> Cell:
    run = Run(scenario, policy, seed, arrivals=(), settings=settings, core=ClockedCore)
    core = run.world.core
    assert isinstance(core, ClockedCore)
    assert scenario.fleet is not None
    decoding = [pool for pool in scenario.fleet.pools if "decode" in pool.stages]
    return Cell(run, core, sum(pool.count * run.kinds[pool.name].slots for pool in decoding))


def _columns(cell: Cell) -> tuple[Any, Any, Any]:
    """First asked, time to the first token, promise kept: of the requests that ended here, or were refused."""
    rows = cell.run.world.ledger.requests()
    late_s = np.zeros(len(rows))
    for row, seconds in cell.late_s.items():
        late_s[row] = seconds
    ttft_s = rows.ttft_s + late_s
    with np.errstate(invalid="ignore"):
        met = np.isin(rows.reason, FINISHED) & (ttft_s <= rows.target_s)
    here = rows.reason != len(REASONS) - 1 if not cell.up else np.ones(len(rows), np.bool_)
    return (rows.arrival_s - late_s)[here], ttft_s[here], met[here]


def _told(cell: Cell, duration_s: float) -> dict[str, float]:
    events, timed = cell.core.counted
    took_s = np.frombuffer(cell.core.took_s, np.float64)[:timed]
    mean_s = float(took_s.mean()) if len(took_s) else 0.0
    return {
        "requests": len(cell.run.world.ledger),
        "events_per_s": events / duration_s,
        "event_us": 1e6 * mean_s,
        "event_p99_us": 1e6 * float(np.quantile(took_s, 0.99)) if len(took_s) else 0.0,
        "manager_share": mean_s * events / duration_s,
    }


def _series(first_s: Any, met: Any, duration_s: float) -> list[float]:
    """The share of promises kept of the requests of each second; -1 where none came."""
    at = first_s.astype(np.int64)
    return [float(met[at == second].mean()) if (at == second).any() else -1.0 for second in range(int(duration_s))]


def _never() -> bool:
    return False


def simulate_cells(
    scenario: Scenario, layout: Layout, policy: str, seed: int, settings: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The figures of one run. Raises what simulate() raises."""
    collected = gc.isenabled()
    gc.disable()  # as simulate() does
    try:
        return Cells(scenario, layout, policy, seed, settings or {}).go().figures()
    finally:
        if collected:
            gc.enable()
