"""Which workers new work should avoid: TAPAS's risk filter, as a weight.

TAPAS asks how near a row comes to its limit. Here caps keep the row within it whatever it is asked to do, and expected
speeds say what that costs: a weight that said so again would starve a worker that can do three quarters of its work
(docs/figures.md). So a row is at risk by what caps cannot take back, and a worker by how near its hottest device is to
its own limit. Below routing.HIGH nothing changes; above, weight falls with the risk. All weights of a stage are
relative to its best worker: risk that is everywhere is no reason to send work elsewhere.
"""

import numpy as np

from headrace.core.power.fleet import STAGES, Fleet, Floats, Mask
from headrace.core.power.routing import HIGH

NEAR_K = 6.0  # [I] below a device's limit, from which on it takes less and less; none at the limit itself
DOUBTED = 0.5  # [I] a worker with a device that nobody can see gets half
LEAST = 0.05


def weights(fleet: Fleet, least_w: Floats, limit_w: Floats, temp_c: Floats, believed: Mask) -> Floats:
    """[worker]. least_w, limit_w: [row], at the lowest caps."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(np.isfinite(limit_w), least_w / np.maximum(limit_w, 1.0), 0.0)
    rows = np.where(share > HIGH, HIGH / np.maximum(share, 1e-9), 1.0)
    cool = np.clip((fleet.limit_c - np.nan_to_num(temp_c)) / NEAR_K, 0.0, 1.0)
    device = np.where(believed, cool, DOUBTED)
    found = rows[np.array([member.row for member in fleet.members], dtype=np.int64)] * fleet.of_worker(device)
    return _beside_the_best(fleet, np.maximum(found, LEAST))


def _beside_the_best(fleet: Fleet, weight: Floats) -> Floats:
    best = dict.fromkeys((*STAGES, ""), 0.0)
    named = [member.stages or ("",) for member in fleet.members]
    for stages, own in zip(named, weight, strict=True):
        for stage in stages:
            best[stage] = max(best.get(stage, 0.0), float(own))
    most = [max(best[stage] for stage in stages) for stages in named]
    found: Floats = np.minimum(1.0, weight / np.maximum(np.array(most, dtype=np.float64), LEAST))
    return found
