"""How many requests a second a fleet carries: found by bisection on its throughput, once for each workload.

Nothing is urgent while it is measured (all requests have the class of an hour), so that no promise shapes the order
and models are loaded as seldom as may be: what remains is what the instances can compute. Carried is a rate at which
so many whole answers come as requests do; the same requests are asked at every rate, faster or slower.
"""

from dataclasses import dataclass

import numpy as np

from loadtest.benches.queue_costs import costs_of
from loadtest.benches.queue_runs import Cell, simulated
from loadtest.benches.queue_workloads import unhurried

SEED = 1_000  # of no evaluation and no tuning
HORIZON_S = 3_600.0
STEPS = 6
CARRIED = 0.97  # of the requests: what is under way at the end, and the first answers' time, is the rest
_LEAST, _MOST = 0.5, 1.1  # of what the costs alone would allow


@dataclass(frozen=True, slots=True)
class Question:
    workload: str
    horizon_s: float = HORIZON_S
    steps: int = STEPS

    def cell(self, rate_rps: float) -> Cell:
        return Cell(self.workload, 1.0, rate_rps, self.horizon_s)

    def __str__(self) -> str:
        return f"saturation of {self.workload}"


def saturation_rps(question: Question) -> float:
    """The largest rate found to be carried; the bracket's lower end if none was."""
    at_most = ideal_rps(question)
    low, high = _LEAST * at_most, _MOST * at_most
    for _ in range(question.steps):
        rate_rps = (low + high) / 2
        cell = question.cell(rate_rps)
        arrivals = unhurried(cell.arrivals(SEED))
        requests = simulated(cell, cell.shape.saturating, SEED, arrivals, {}).requests
        ended = requests.finished & (np.nan_to_num(requests.end_s, nan=np.inf) <= question.horizon_s)
        low, high = (rate_rps, high) if ended.sum() >= CARRIED * len(arrivals) else (low, rate_rps)
    return low


def ideal_rps(question: Question) -> float:
    """Of instances that lose nothing: one request's least seconds at each, side by side."""
    cell = question.cell(1.0)
    arrivals = cell.arrivals(SEED)
    costs = costs_of(cell.shape.scenario(question.horizon_s), arrivals)
    return sum(each.count / float(np.mean(each.total_s[np.isfinite(each.total_s)])) for each in costs)
