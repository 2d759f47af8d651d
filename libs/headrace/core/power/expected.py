"""What caps mean for requests: the speed of each worker's stages, and the loads that the stage allocator weighs."""

import numpy as np

from headrace.core.power.allocator import StageLoad
from headrace.core.power.demand import DECODE, Demand
from headrace.core.power.fleet import STAGES, Fleet, Floats


def factors(fleet: Fleet, demand: Demand, caps_w: Floats, limit_w: Floats, counts: Floats) -> Floats:
    """[stage, worker]: expected speed beside full speed. counts, limit_w: 0 or 1 of each device; [row].

    An idle device has the lowest cap, but is given more within seconds of beginning: it counts with the share of its
    way up that busy ones of its row have.
    """
    would_be = _when_busy(fleet, demand, caps_w, limit_w, counts)
    found = np.ones((len(STAGES), len(fleet.members)))
    for place in range(len(STAGES)):
        speed = fleet.law.speed(would_be, fleet.law.phase_w[place])
        rate = fleet.law.decode_rate(speed) if place == DECODE else speed
        found[place] = fleet.of_worker(np.where(fleet.cappable, rate, 1.0))
    return found


def _when_busy(fleet: Fleet, demand: Demand, caps_w: Floats, limit_w: Floats, counts: Floats) -> Floats:
    law, idle = fleet.law, demand.idle()
    phase = np.max(np.where(fleet.serves, law.phase_w, 0.0), axis=0, initial=0.0)
    want = np.where(idle, np.maximum(phase, fleet.least_w), np.where(np.isfinite(demand.want_w), demand.want_w, phase))
    span = np.maximum(want - fleet.least_w, 0.0)
    counted = counts * fleet.cappable * ~fleet.opaque
    busy = counted * ~idle
    up = np.minimum(np.maximum(caps_w - fleet.least_w, 0.0), span)
    free = np.maximum(limit_w - fleet.by_row(caps_w * counts), 0.0) + fleet.by_row(up * counted)
    whole, busy_span = fleet.by_row(span * counted), fleet.by_row(span * busy)
    with np.errstate(divide="ignore", invalid="ignore"):
        of_busy = fleet.by_row(up * busy) / busy_span
        of_all = np.where(whole > 0.0, free / whole, 1.0)
    share = np.clip(np.where(busy_span > 0.0, of_busy, of_all), 0.0, 1.0)[fleet.row]
    return np.where(idle, np.maximum(caps_w, fleet.least_w + share * span), caps_w)


def _spread(need: Floats, there: Floats) -> float:
    """Over how many devices the work is spread: (sum of x)^2 / sum of x^2, all of them where it is even."""
    whole, squares = float((need * there).sum()), float((need * need * there).sum())
    return whole * whole / squares if squares > 1e-12 else float(there.sum())


def stage_loads(fleet: Fleet, demand: Demand, who: Floats) -> list[StageLoad]:
    """Of the devices `who` (their number each counts for; 0: not), by what each mostly does."""
    stage, idle = demand.stage(fleet), demand.idle()
    want = np.where(idle | ~np.isfinite(demand.want_w), fleet.law.phase_w[stage, np.arange(len(stage))], demand.want_w)
    want = np.clip(want, fleet.least_w, np.maximum(fleet.most_w, fleet.least_w))
    found = []
    for place, name in enumerate(STAGES):
        there = who * (stage == place)
        devices = float(there.sum())
        if devices <= 0.0:
            continue

        def mean(values: Floats, there: Floats = there, devices: float = devices) -> float:
            return float((values * there).sum() / devices)

        found.append(
            StageLoad(
                name,
                devices,
                float((demand.need * there).sum()),
                mean(fleet.law.context_w),
                mean(want),
                mean(fleet.least_w),
                mean(fleet.law.exponent),
                mean(fleet.law.free_speed) if place == DECODE else 1.0,
                mean(fleet.law.speed_least),
                _spread(demand.need, there),
            )
        )
    return found
