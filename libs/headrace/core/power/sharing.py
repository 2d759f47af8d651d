"""A row's watts and an aisle's air shared among devices: who gives way, how far, one step after the other.

Everybody begins with all that the device can draw and gives up first what nobody misses. Within a step all give the
same share of what they can (emergency.cut). Since power goes with a power of speed, that is the same slowdown for all:
no stage becomes the narrowest because of the cut.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headrace.core.power.demand import Demand
from headrace.core.power.emergency import ORDER, cut
from headrace.core.power.fleet import STAGES, Fleet, Floats, Mask, Numbers

# What each step is called when a device is told why it is held; by index, 0: it is not.
REASONS = (
    "",
    "headroom that nobody uses",
    "decode gives way, at no loss",
    "prefill and encode give way, with time to spare",
    "all give way, as far as the work allows",
    "its stage keeps to its budget",
    "all stages give way alike",
    "an opaque tenant gives way, last",
    "too warm",
    "its readings are not believed: safe cap",
    "its share by the budget policy",
)
WARM, SAFE, SPLIT = 8, 9, 10
# Of ORDER, the place that each step belongs to.
STEP_OF = (0, 0, 1, 2, 2, 2, 2, ORDER.index("opaque tenants"))


@dataclass(frozen=True, slots=True)
class Ladder:
    """How far each device may be brought down, step by step; floors[-1] is the least there is."""

    start_w: Floats
    floors_w: tuple[Floats, ...]


def ladder(fleet: Fleet, demand: Demand, start_w: Floats, stage_share: Floats, pinned: Mask) -> Ladder:
    """stage_share: [stage], of the way from the least to what just does its work, that its stage's budget leaves it.
    pinned: devices that keep start_w, whatever comes."""
    wish = demand.floors(fleet)
    least = np.where(pinned, start_w, fleet.least_w)
    served = np.where(fleet.opaque, wish.want, least)
    share = stage_share[demand.stage(fleet)]
    budget = np.where(fleet.opaque, wish.want, least + share * np.maximum(wish.just - least, 0.0))
    floors = (wish.want, wish.free, wish.light, wish.just, budget, served, least)
    return Ladder(start_w, tuple(np.clip(floor, np.minimum(least, start_w), start_w) for floor in floors))


def under(ladder: Ladder, ceiling_w: Floats, least_w: Floats, pinned: Mask) -> Ladder:
    """The same from no higher than a ceiling, which is never below the least; pinned ones stay."""
    start = np.where(pinned, ladder.start_w, np.minimum(ladder.start_w, np.maximum(ceiling_w, least_w)))
    return Ladder(start, tuple(np.minimum(floor, start) for floor in ladder.floors_w))


def climb_down(ladder: Ladder, who: Numbers, weight: Floats, most: float) -> tuple[Floats, Numbers]:
    """Watts of the devices `who` with sum(weight x watts) <= most, as far as the floors allow; and the step at which
    each gave way last, an index into REASONS.

    weight: of those devices; their GPUs, or m3/s that a watt needs.
    """
    given = ladder.start_w[who]
    step = np.zeros(len(who), dtype=np.int64)
    for place, floors in enumerate(ladder.floors_w, start=1):
        if float(given @ weight) <= most:
            break
        floor = np.minimum(floors[who], given)
        fewer = _cut(given, floor, weight, most, STEP_OF[place])
        step = np.where(fewer < given - 1e-9, place, step)
        given = fewer
    return given, step


def _cut(given: Floats, floor: Floats, weight: Floats, most: float, stage: int) -> Floats:
    counted = weight > 0.0
    stages = np.full(int(counted.sum()), stage)
    found = given.copy()
    found[counted] = cut((given * weight)[counted], (floor * weight)[counted], stages, most) / weight[counted]
    return np.maximum(found, floor)


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds: [row] watts and [aisle] m3/s, infinite where there is none."""

    row_w: Floats
    aisle_m3s: Floats


def share(fleet: Fleet, ladder: Ladder, counts: Floats, limits: Limits) -> tuple[Floats, Numbers, Mask]:
    """Watts of every device, at which step it gave way last, and whether for want of air.

    counts: 1, or 0 for what draws nothing any more."""
    watts, step = ladder.start_w.copy(), np.zeros(len(ladder.start_w), dtype=np.int64)
    for row in np.flatnonzero(np.isfinite(limits.row_w)):
        who = np.flatnonzero(fleet.row == row)
        watts[who], step[who] = climb_down(ladder, who, (fleet.gpus * counts)[who], float(limits.row_w[row]))
    aisle, air = fleet.aisle[fleet.row], np.zeros(len(watts), dtype=np.bool_)
    below = Ladder(watts, tuple(np.minimum(floor, watts) for floor in ladder.floors_w))
    for place in np.flatnonzero(np.isfinite(limits.aisle_m3s)):
        who = np.flatnonzero(aisle == place)
        weight = (fleet.air_per_w * fleet.gpus * counts)[who]
        base = float((fleet.air_base * fleet.gpus * counts)[who].sum())
        fewer, deeper = climb_down(below, who, weight, float(limits.aisle_m3s[place]) - base)
        watts[who], step[who], air[who] = fewer, np.where(deeper > 0, deeper, step[who]), deeper > 0
    return watts, step, air


def fallback(fleet: Fleet, counts: Floats, limits: Limits) -> Floats:
    """Watts of every device that keep all limits whatever each of them does: by kind and stage alone, from no reading.

    0 where nothing limits it."""
    phase = np.max(np.where(fleet.serves, fleet.law.phase_w, 0.0), axis=0, initial=0.0)
    fair = np.where((phase > 0.0) & ~fleet.opaque, np.minimum(phase, fleet.most_w), fleet.most_w)
    start = np.where(fleet.cappable, np.maximum(fair, fleet.least_w), fleet.most_w)
    least = np.where(fleet.cappable, fleet.least_w, start)
    evenly = Ladder(start, (least,))
    watts, _, _ = share(fleet, evenly, counts, limits)
    bound = np.isfinite(limits.row_w)[fleet.row] | np.isfinite(limits.aisle_m3s)[fleet.aisle[fleet.row]]
    return np.where(bound & fleet.cappable, watts, 0.0)


def stage_shares(budgets: Mapping[str, float], just_w: Floats, least_w: Floats, stage: Numbers, gpus: Floats) -> Floats:
    """[stage]: of the way from least to what just does its work, that the budgets leave; 1 where there is none."""
    found = np.ones(len(STAGES))
    for place, name in enumerate(STAGES):
        if name in budgets:
            there = stage == place
            least = float((least_w * gpus)[there].sum())
            span = float(((just_w - least_w) * gpus)[there].sum())
            found[place] = np.clip((budgets[name] - least) / span, 0.0, 1.0) if span > 0.0 else 1.0
    return found
