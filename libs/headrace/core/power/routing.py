"""How an endpoint's work is spread over its instances so that no row, aisle or GPU comes near its limit.

TAPAS filters instances whose risk is above a threshold, then packs the others. Here the same is one rule: the lowest
level of risk at which all work fits; every row, aisle and GPU is filled to the same share of what it can take. Packing
was tried and left out: an idle GPU with a model loaded draws context power anyway, power rises with the cube of speed,
so few busy instances are hotter and no cheaper than many slow ones. What fits nowhere below the high level is spread
evenly: it is the configuration's turn then.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
HIGH = 0.95  # [I] share of a limit from which on an instance is avoided
_HALVINGS = 14


@dataclass(frozen=True, slots=True)
class Instances:
    """Of one endpoint; a load of 1 is a fully busy instance."""

    row: Numbers
    aisle: Numbers
    capacity: Floats  # work per second at full load
    load_w: Floats  # that full load adds to the server
    load_m3s: Floats  # and to its airflow
    coolest: Floats  # load up to which its GPUs stay below their limit


@dataclass(frozen=True, slots=True)
class Room:
    """What everything else already takes."""

    row_w: Floats
    row_most_w: Floats
    aisle_m3s: Floats
    aisle_most_m3s: Floats


def spread(work: float, instances: Instances, room: Room) -> Floats:
    """Loads of the instances: sum(load x capacity) = work as far as there is capacity."""
    total = float(instances.capacity.sum())
    if work <= 0.0 or total <= 0.0:
        return np.zeros(len(instances.row))
    low, high = 0.0, HIGH
    if _able(_level(high, instances, room), instances) < work:
        return _evenly(work, instances)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if _able(_level(middle, instances, room), instances) >= work:
            high = middle
        else:
            low = middle
    loads = _level(high, instances, room)
    return loads * min(1.0, work / _able(loads, instances))


def _able(loads: Floats, instances: Instances) -> float:
    return float(loads @ instances.capacity)


def _level(level: float, instances: Instances, room: Room) -> Floats:
    """The most load of each at which rows, aisles and GPUs stay at this share of their limits; alike within a row."""
    rows = _share(level * room.row_most_w - room.row_w, instances.row, instances.load_w)
    aisles = _share(level * room.aisle_most_m3s - room.aisle_m3s, instances.aisle, instances.load_m3s)
    found: Floats = np.clip(np.minimum(np.minimum(rows, aisles), level * instances.coolest), 0.0, 1.0)
    return found


def _share(left: Floats, group: Numbers, each: Floats) -> Floats:
    """Of what a row or aisle has left, as a load of each instance there."""
    wanted = np.bincount(group, each, len(left))
    found: Floats = np.where(wanted > 0, np.maximum(left, 0.0) / np.maximum(wanted, 1e-9), 1.0)[group]
    return found


def _evenly(work: float, instances: Instances) -> Floats:
    return np.full(len(instances.row), min(1.0, work / float(instances.capacity.sum())))
