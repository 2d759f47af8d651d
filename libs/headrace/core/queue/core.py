"""QueueCore: events in, effects out. Pure: time is an argument, nothing is awaited, drawn or logged."""

from collections.abc import Callable
from typing import Any

from headrace.core.effects import Effect
from headrace.core.events import (
    Attach,
    BusDown,
    BusUp,
    Cancel,
    CaughtUp,
    Ended,
    Event,
    Evicted,
    Governed,
    Heartbeat,
    Joined,
    LengthPredicted,
    PartEncoded,
    PlanSolved,
    Prefilled,
    RequestAccepted,
    ResultsFound,
    ResultStored,
    StageFailed,
    Stalled,
    Switched,
    Tick,
    TokensRecovered,
)
from headrace.core.queue.adoption import accept, caught_up, end_adoption, results_found
from headrace.core.queue.cell import Cell
from headrace.core.queue.check import check
from headrace.core.queue.config import QueueConfig
from headrace.core.queue.control import attach, cancel, ring, stalled
from headrace.core.queue.dispatch import dispatch
from headrace.core.queue.ends import result_stored, worker_ended
from headrace.core.queue.governing import follow_governor, governed
from headrace.core.queue.inspect import Inspection, inspect
from headrace.core.queue.lengths import length_predicted
from headrace.core.queue.operations import evicted
from headrace.core.queue.overlap import put_back
from headrace.core.queue.planning import ask_for_plan, follow_instances, plan_solved
from headrace.core.queue.recovery import expire_leases, extend_leases, tokens_recovered
from headrace.core.queue.repair import heartbeat
from headrace.core.queue.roles import follow_roles
from headrace.core.queue.running import keep_fresh
from headrace.core.queue.stages import joined, part_encoded, prefilled, stage_failed
from headrace.core.queue.switches import switched, switches
from headrace.core.queue.views import (
    CellView,
    Explanation,
    QueueView,
    cell_view,
    explain,
    queue_view,
)
from headrace.core.queue.waits import expect_waits


def _tick(cell: Cell, event: Tick, now_s: float) -> None:
    last_s, cell.last_tick_s = cell.last_tick_s, now_s
    if last_s is not None and now_s - last_s > cell.config.tick_gap_s:
        extend_leases(cell, now_s)
    expire_leases(cell, now_s)
    end_adoption(cell, now_s)
    while (due := cell.due(now_s)) is not None:
        alarm, job, attempt = due
        ring(cell, alarm, job, attempt, now_s)
    follow_governor(cell, now_s)
    if cell.filling and cell.dispatching:
        put_back(cell, now_s)
    if cell.virtual is not None and cell.dispatching:
        follow_instances(cell, cell.virtual)
        keep_fresh(cell, now_s)
        expect_waits(cell, cell.virtual, now_s)
        ask_for_plan(cell, cell.virtual, now_s)


def _bus_down(cell: Cell, event: BusDown, now_s: float) -> None:
    cell.bus_up = False


def _bus_up(cell: Cell, event: BusUp, now_s: float) -> None:
    cell.bus_up = True
    cell.dirty = True
    extend_leases(cell, now_s)


_HANDLERS: dict[type, Callable[[Cell, Any, float], None]] = {
    RequestAccepted: accept,
    CaughtUp: caught_up,
    ResultsFound: results_found,
    PartEncoded: part_encoded,
    Prefilled: prefilled,
    Joined: joined,
    Evicted: evicted,
    Ended: worker_ended,
    StageFailed: stage_failed,
    Heartbeat: heartbeat,
    Governed: governed,
    Cancel: cancel,
    Attach: attach,
    Stalled: stalled,
    TokensRecovered: tokens_recovered,
    LengthPredicted: length_predicted,
    PlanSolved: plan_solved,
    ResultStored: result_stored,
    Switched: switched,
    BusDown: _bus_down,
    BusUp: _bus_up,
    Tick: _tick,
}


class QueueCore:
    """One leadership of the queue manager. A new leadership is a new object that reads the journal again."""

    def __init__(self, config: QueueConfig) -> None:
        self._cell = Cell(config)

    def handle(self, event: Event, now_s: float) -> list[Effect]:
        """Take one event in; now_s never runs back by more than a clock's correction."""
        cell = self._cell
        effects = cell.effects = []
        _HANDLERS[type(event)](cell, event, now_s)
        follow_roles(cell, now_s)
        if cell.virtual is not None:
            follow_instances(cell, cell.virtual)
        if cell.dirty and cell.dispatching:
            dispatch(cell, now_s)
        return effects

    def check(self) -> None:
        """Assert the invariants: one state each, books that add up, nothing above capacity."""
        check(self._cell)

    def view(self, now_s: float) -> CellView:
        return cell_view(self._cell, now_s)

    def queued(self) -> dict[str, int]:
        """Requests that wait, by SLO class."""
        return {name: self._cell.waiting_in(name) for name in self._cell.config.classes}

    def queue_view(self, limit: int) -> QueueView:
        """The first `limit` of each waiting line, and where the running requests are."""
        return queue_view(self._cell, limit)

    def inspect(self, now_s: float, groups_max: int = 100) -> Inspection:
        """The virtual queues in order, who was served how much, what was done."""
        return inspect(self._cell, now_s, groups_max)

    def live_ids(self) -> frozenset[str] | None:
        """Every request that has not ended; None while a new leadership does not know them all."""
        return frozenset(self._cell.jobs) if self._cell.caught_up else None

    def switches(self) -> dict[str, bool]:
        """What may be turned on and off while it runs, as it stands."""
        return switches(self._cell)

    def explain(self, request_id: str, now_s: float) -> Explanation:
        return explain(self._cell, request_id, now_s)
