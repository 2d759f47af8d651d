"""The governor: from what devices say to the caps that keep rows, aisles and temperatures within their limits.

One step: who may be believed, what each would draw, what the limits are now, who gives way, which caps are sent, and
what that means for requests. Pure: time is an argument, and speeds that temperatures allow come in with the readings.
"""

from dataclasses import dataclass, replace

import numpy as np

from headrace.core.power import sharing
from headrace.core.power.admission import Admission
from headrace.core.power.allocator import Allocator
from headrace.core.power.decision import Decision, Entry, RowView
from headrace.core.power.demand import MARGIN, Demand
from headrace.core.power.emergency import AIR_LEFT, POWER_LEFT, Emergency, Event
from headrace.core.power.expected import factors, stage_loads
from headrace.core.power.fleet import STAGES, Fleet, Floats, Mask, Numbers, Readings, places, taken
from headrace.core.power.holding import Holding
from headrace.core.power.limits import Budgets
from headrace.core.power.meter import Meter
from headrace.core.power.risk import weights
from headrace.core.power.sharing import SAFE, SPLIT, WARM, Ladder, Limits
from headrace.core.power.splitting import Ruled, Splitter
from headrace.core.power.telling import DEAF, admitted, changes, doubts, moves
from headrace.core.power.trust import Bounds, Trust

LEASE_S = 5.0  # a worker that hears nothing for so long takes its fallback; one that says nothing is gone then


@dataclass(frozen=True, slots=True)
class _Sight:
    """One step's view of the devices."""

    fleet: Fleet
    seen: Readings
    trusted: Mask  # its readings are believed and it keeps its caps
    deaf: Mask  # it keeps other caps than it is told
    silent: Mask  # nothing was heard of it for too long, and its lease is not over
    counts: Floats  # 0: gone, it draws nothing any more
    held_w: Floats  # what it may still draw
    before_w: Floats  # the cap that it was told
    safe_w: Floats  # of a device whose readings nobody believes
    limits: Limits
    tight: Limits  # the same, less what devices have been seen to draw above their caps

    @property
    def pinned(self) -> Mask:
        """Whose watts are not for the governor to choose."""
        found: Mask = ~self.fleet.cappable | ~self.trusted
        return found

    @property
    def safest_w(self) -> Floats:
        """Caps of those: the fallback, unless they have less; never more than before."""
        return np.where(self.safe_w > 0.0, np.minimum(self.safe_w, self.before_w), self.before_w)


class Governor:
    def __init__(self, bounds: Bounds | None = None, lease_s: float = LEASE_S, *, obeyed: bool = True) -> None:
        """obeyed: caps are really sent. Else it only says what it would do, as if every device followed."""
        self.emergency = Emergency()
        self.budgets = Budgets()
        self.splitter: Splitter | None = None  # None: the stage allocator, which sees everything
        self._bounds = bounds or Bounds()
        self._lease_s = lease_s
        self._obeyed = obeyed
        self._keys: tuple[str, ...] = ()
        self._fleet: Fleet | None = None
        self._at_s = float("-inf")
        self._trust = Trust(0, self._bounds)
        self._demand, self._holding, self._meter = Demand(), Holding(), Meter()
        self._admission, self._allocator = Admission(), Allocator()
        self._safe_w: Floats = np.empty(0)
        self._doubted: Numbers = np.empty(0, dtype=np.int64)
        self._gone: Mask = np.empty(0, dtype=np.bool_)
        self._slots_told: Floats = np.empty(0)
        self._last: Decision | None = None

    # --- what operators say ---

    def set_budget(self, row: str, watts: float) -> Entry:
        before = self.budgets.set(row, watts)
        return Entry("budget", row, "set by an operator" if watts > 0.0 else "lifted by an operator", before, watts)

    def declare(self, kind: Event) -> Entry:
        self.emergency.events.add(kind)
        left = POWER_LEFT if kind == "ups" else AIR_LEFT
        lost, what = ("a UPS", "power") if kind == "ups" else ("an air handler", "air")
        return Entry("emergency", kind, f"{lost} is lost: {left:.0%} of the {what} is left", 1.0, left)

    def clear(self, kind: Event) -> Entry:
        self.emergency.events.discard(kind)
        return Entry("clear", kind, "an operator says that it is over", POWER_LEFT if kind == "ups" else AIR_LEFT, 1.0)

    # --- a step ---

    def step(self, fleet: Fleet, seen: Readings, now_s: float, unix_s: float = 0.0) -> Decision:
        """Once a second, and at once when an operator has said something. unix_s: what budget policies go by."""
        self._move(fleet)
        passed_s = min(1.0, max(0.0, now_s - self._at_s))
        self._at_s = now_s
        self._holding.adopt(fleet, seen.cap_w)
        sight = self._look(fleet, seen, now_s, passed_s)
        target, why, air = self._target(sight, now_s, unix_s)
        limit_w, counts, before = sight.tight.row_w, sight.counts, sight.before_w
        target = self._holding.settle(fleet, target, limit_w, counts, sight.pinned)
        caps = self._holding.send(fleet, target, sight.held_w, limit_w, counts, now_s)
        slots = self._admit(sight, caps, passed_s)
        decision = self._said(sight, caps, why, air, slots)
        audit = (
            *self._doubts(sight),
            *changes(decision, before, caps),
            *self._admitted(fleet, slots),
            *moves(self._last, decision),
            *(self.splitter.told() if self.splitter is not None else ()),
        )
        self._last = replace(decision, audit=audit)
        return self._last

    def _move(self, fleet: Fleet) -> None:
        if fleet is self._fleet:
            return
        at = places(self._keys, fleet.keys)
        self._trust.move(at)
        self._demand.move(at)
        self._holding.move(at)
        self._safe_w = taken(self._safe_w, at, 0.0)
        self._doubted = taken(self._doubted.astype(np.float64), at, 0.0).astype(np.int64)
        self._gone = taken(self._gone.astype(np.float64), at, 0.0).astype(np.bool_)
        self._fleet, self._keys = fleet, fleet.keys

    def _look(self, fleet: Fleet, seen: Readings, now_s: float, passed_s: float) -> _Sight:
        gone = seen.age_s > self._bounds.stale_s + self._lease_s
        counts = np.where(gone, 0.0, 1.0)
        ruled = fleet.cappable  # what nobody may cap is believed or not at no difference
        believed = self._trust.look(
            np.where(ruled, seen.temp_c, 50.0),
            np.where(ruled, seen.power_w, 0.0),
            seen.age_s,
            np.where(ruled, seen.expected_c, np.nan),
            seen.full_w,
        )
        self._demand.follow(fleet, seen, believed, passed_s)
        held = self._holding.held(fleet, seen.cap_w, now_s - seen.age_s) if self._obeyed else self._holding.cap_w
        self._holding.count(held, believed & ~gone & ruled, passed_s)
        deaf = self._holding.is_deaf()
        limits = self.budgets.limits(fleet, counts, self.emergency)
        safe = np.where(gone, self._safe_w, sharing.fallback(fleet, counts, limits))
        self._safe_w = safe
        # A silent worker may be deaf too: when its lease ends it takes its fallback, which may be more than its cap.
        silent = ruled & ~gone & (seen.age_s > self._bounds.stale_s) & self._obeyed
        held = np.where(silent, np.maximum(held, safe), held)
        trusted = believed & ~deaf
        kept = trusted & ~gone & self._obeyed
        over = self._meter.follow(fleet, seen.power_w, held, kept, passed_s)
        tight = Limits(limits.row_w / over, limits.aisle_m3s)
        return _Sight(fleet, seen, trusted, deaf, silent, counts, held, self._holding.cap_w, safe, limits, tight)

    def _target(self, sight: _Sight, now_s: float, unix_s: float) -> tuple[Floats, Numbers, Mask]:
        """Watts of each device, why, and whether for want of air."""
        fleet, demand = sight.fleet, self._demand
        start, warm = _start(sight, demand)
        if self.splitter is None:
            shares = self._stage_shares(sight, start, now_s)
            ladder = sharing.ladder(fleet, demand, start, shares, sight.pinned)
        else:
            ladder = self._split(self.splitter, sight, start, unix_s)
        watts, step, air = sharing.share(fleet, ladder, sight.counts, sight.tight)
        whole = np.where(watts < start - 1e-9, np.maximum(np.floor(watts), np.minimum(fleet.least_w, watts)), watts)
        watts = np.where(sight.pinned, np.where(fleet.cappable, sight.safest_w, start), whole)
        why = np.where((step == 0) & warm, WARM, step)
        why = np.where((step == 0) & (ladder.start_w < start - 1e-9), SPLIT, why)
        return watts, np.where(fleet.cappable & ~sight.trusted, SAFE, why), air

    def _split(self, splitter: Splitter, sight: _Sight, start: Floats, unix_s: float) -> Ladder:
        """Nobody begins above what the budget policy says; the row's limit is kept from there on."""
        fleet, bound = sight.fleet, self._bound(sight)
        self._allocator.shares = []
        ladder = sharing.ladder(fleet, self._demand, start, np.ones(len(STAGES)), sight.pinned)
        wants, need = self._wants(sight, start), self._demand.need
        ruled = Ruled(fleet, bound, wants, need, sight.tight.row_w, unix_s)
        return sharing.under(ladder, splitter.ceilings(ruled, ladder), fleet.least_w, sight.pinned)

    @staticmethod
    def _bound(sight: _Sight) -> Mask:
        """There, in a row that has a limit."""
        found: Mask = np.isfinite(sight.limits.row_w)[sight.fleet.row] & (sight.counts > 0.0)
        return found

    def _wants(self, sight: _Sight, start: Floats) -> Floats:
        """What an opaque tenant draws unhindered; of others, where they start."""
        fleet = sight.fleet
        wish = self._demand.floors(fleet).want
        return np.where(fleet.opaque & ~sight.pinned, np.minimum(wish, start), start)

    def _stage_shares(self, sight: _Sight, start: Floats, now_s: float) -> Floats:
        """Of the stage allocator, over all rows that have a limit."""
        fleet, demand = sight.fleet, self._demand
        bound = self._bound(sight)
        ours = bound & ~sight.pinned & ~fleet.opaque
        wish = demand.floors(fleet)
        others = self._wants(sight, start)
        left = sight.tight.row_w[np.isfinite(sight.tight.row_w)].sum() - float(
            (others * fleet.gpus)[bound & ~ours].sum()
        )
        loads = stage_loads(fleet, demand, fleet.gpus * ours)
        elastic = {name for member in fleet.members if len(member.stages) > 1 for name in member.stages}
        budgets = self._allocator.solve(loads, left, now_s, elastic) if loads else {}
        if not loads:
            self._allocator.shares = []
        return sharing.stage_shares(budgets, wish.just, fleet.least_w, demand.stage(fleet), fleet.gpus * ours)

    def _admit(self, sight: _Sight, caps: Floats, passed_s: float) -> Floats:
        """[row]: share of the slots of serving workers; opaque tenants go on as they are until these have given way."""
        fleet = sight.fleet
        want = self._demand.floors(fleet).want
        fixed = np.where(fleet.opaque & ~sight.pinned, want, np.where(sight.pinned, caps, fleet.least_w))
        idle = np.minimum(fixed, np.where(sight.pinned | fleet.opaque, fixed, fleet.law.context_w))
        least, base = fleet.by_row(fixed * sight.counts), fleet.by_row(idle * sight.counts)
        return self._admission.step(sight.limits.row_w, least, base, _power(sight, caps), passed_s)

    def _doubts(self, sight: _Sight) -> list[Entry]:
        now = np.where(sight.deaf, DEAF, self._trust.doubt.astype(np.int64))
        now = np.where(sight.fleet.cappable, now, 0)
        gone = sight.counts == 0.0
        found = list(doubts(sight.fleet, self._doubted, now, self._gone, gone))
        self._doubted, self._gone = now, gone
        return found

    def _admitted(self, fleet: Fleet, slots: Floats) -> list[Entry]:
        if len(self._slots_told) != len(slots):
            self._slots_told = np.ones(len(slots))
        found = list(admitted(fleet, self._slots_told, slots))
        told = {entry.subject for entry in found}
        rows = np.array([row.name in told for row in fleet.rows], dtype=np.bool_)
        self._slots_told = np.where(rows, slots, self._slots_told)
        return found

    def _said(self, sight: _Sight, caps: Floats, why: Numbers, air: Mask, slots: Floats) -> Decision:
        fleet, seen, counts = sight.fleet, sight.seen, sight.counts
        rows_of = np.array([member.row for member in fleet.members], dtype=np.int64)
        opaque = np.array([member.opaque for member in fleet.members], dtype=np.bool_)
        least_w = _least(sight, caps)
        rows = self._rows(sight, caps, least_w)
        return Decision(
            fleet,
            np.where(fleet.cappable & (caps < fleet.most_w - 0.5), caps, 0.0),
            sight.safe_w,
            why,
            air.astype(np.int64),
            weights(fleet, least_w, sight.limits.row_w, seen.temp_c, sight.trusted | ~fleet.cappable),
            np.where(opaque, 1.0, slots[rows_of]),
            factors(fleet, self._demand, caps, sight.limits.row_w, counts),
            rows,
            tuple(self._allocator.shares),
            (),
            tuple(_notes(rows, slots)),
        )

    def _rows(self, sight: _Sight, caps: Floats, least: Floats) -> tuple[RowView, ...]:
        fleet, limits = sight.fleet, sight.limits
        power = _power(sight, caps)
        air = fleet.by_row((fleet.air_base + fleet.air_per_w * _watts(sight, caps)) * sight.counts)
        unknown = fleet.by_row((fleet.air_base <= 0.0) * sight.counts) > 0.0
        given = self.budgets.air(fleet, sight.counts, self.emergency)
        return tuple(
            RowView(
                row.name,
                float(power[at]),
                self.budgets.of(row),
                float(limits.row_w[at]) if np.isfinite(limits.row_w[at]) else 0.0,
                float(least[at]),
                -1.0 if unknown[at] else float(air[at]),
                float(given[at]) if np.isfinite(given[at]) else 0.0,
            )
            for at, row in enumerate(fleet.rows)
        )


def _start(sight: _Sight, demand: Demand) -> tuple[Floats, Mask]:
    """What each device may draw if its row has no limit, and whom its temperature holds below its own limit."""
    fleet, seen = sight.fleet, sight.seen
    unruled = np.where(fleet.most_w > 0.0, fleet.most_w, np.nan_to_num(seen.power_w) * MARGIN)
    full = np.where(np.isfinite(demand.want_w), demand.want_w, fleet.most_w)
    cool = np.where(seen.thermal < 1.0, np.maximum(fleet.law.drawn_w(full, seen.thermal), fleet.least_w), np.inf)
    warm = fleet.cappable & (cool < fleet.most_w)
    start = np.where(fleet.cappable, np.minimum(fleet.most_w, cool), unruled)
    start = np.where(fleet.cappable & ~sight.trusted, sight.safest_w, start)
    unruly = (sight.deaf | sight.silent) & (sight.counts > 0.0)
    return np.where(unruly, np.maximum(sight.held_w, start), start), warm


def _watts(sight: _Sight, caps: Floats) -> Floats:
    """Measured; of what cannot be, or is not believed, all that it may draw."""
    measured = np.nan_to_num(sight.seen.power_w)
    return np.where(sight.trusted & np.isfinite(sight.seen.power_w), measured, caps)


def _power(sight: _Sight, caps: Floats) -> Floats:
    return sight.fleet.by_row(_watts(sight, caps) * sight.counts)


def _least(sight: _Sight, caps: Floats) -> Floats:
    """[row]: what is drawn at most if every device gives way as far as it can."""
    return sight.fleet.by_row(np.where(sight.pinned, caps, sight.fleet.least_w) * sight.counts)


def _notes(rows: tuple[RowView, ...], slots: Floats) -> list[str]:
    return [
        f"{row.name}: {row.limit_w:.0f} W cannot be kept by caps alone, {row.least_w:.0f} W is the least that its "
        f"devices may draw: {share:.0%} of the slots are used"
        for row, share in zip(rows, slots, strict=True)
        if row.limit_w > 0.0 and row.least_w > row.limit_w
    ]
