"""One simulated run of the queue bench: a cell of the grid, a policy and a seed in, the figures of a row out.

A promise is kept when the first token comes within the request's target and the whole answer is given; whoever is
refused, expired or past its deadline has been let down.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headrace.core.planning.registry import PLANNERS
from headrace.core.planning.shepherd import Shepherd
from headrace.sim.result import Result
from headrace.sim.run import simulate
from headrace.workload.arrival import Arrival
from headrace.workload.scenario import Scenario
from loadtest.benches.queue_workloads import CLASSES, HORIZON_S, WORKLOADS, Workload

# The clocks of an idle fleet, slowed down: heartbeats and ticks are half of all events at a request a second. The
# lengths' predictor and the hops are the live mesh's.
CLOCKS = {"heartbeat_s": 2.0, "lease_s": 8.0, "tick_s": 1.0}
PREDICTOR = "blurred:0.6"  # the trained predictor's Kendall tau on its test split; the simulator has no prompts' words
# A plan in the simulator takes the wall time that it takes: a short search, without the mixed-integer program. Live it
# has thirty times as many moves; what those beyond these few hundred gain is within what two seeds differ by. A plan a
# second is the live default: with one in ten seconds a fleet of several models keeps a fifth less (docs/figures.md).
PLANNING = {"plan_nodes": 0, "plan_moves": 1_000, "replan_s": 1.0}
SHEPHERD_FACTOR = "shepherd_factor"  # among settings: of the baseline itself, not of the queue manager
_ONE_LINE = {"fcfs": "fcfs", "edf": "edf"}  # one line for all instances: what a single model's deployment does
_SWAPPING = {"fcfs": "vq-fcfs", "edf": "vq-edf"}  # several models: a queue for each instance, swapped as its head asks
OPERATIONS = ("evict", "balance", "pull", "plan")
SWAP_OPERATIONS = ("swap", "warm")  # of several models alone


@dataclass(frozen=True, slots=True)
class Cell:
    workload: str
    load: float  # of saturation
    rate_rps: float
    horizon_s: float = HORIZON_S

    @property
    def shape(self) -> Workload:
        return WORKLOADS[self.workload]

    def scenario(self) -> Scenario:
        return replace(self.shape.scenario(self.horizon_s), mesh=CLOCKS)

    def arrivals(self, seed: int) -> list[Arrival]:
        return self.shape.arrivals(self.rate_rps, seed, self.horizon_s)

    def __str__(self) -> str:
        return f"{self.workload} at {self.load:g}"


@dataclass(frozen=True, slots=True)
class Run:
    cell: Cell
    policy: str  # a name of policies()
    seed: int
    settings: tuple[tuple[str, Any], ...] = ()  # of the queue manager, that differ from its defaults

    def __str__(self) -> str:
        return f"{self.cell}, {self.policy}, seed {self.seed}"


def policies(workload: Workload) -> dict[str, str]:
    """By the name in the report: the simulator's policy."""
    several = len(workload.models) > 1
    off = (*OPERATIONS, *(SWAP_OPERATIONS if several else ()))
    return {
        **(_SWAPPING if several else _ONE_LINE),
        "shepherd": f"shepherd+{PREDICTOR}",
        "headrace": f"headrace+{PREDICTOR}",
        "headrace_oracle_lengths": "headrace+oracle",
        "headrace_random_lengths": "headrace+random",
        **{f"headrace_without_{name}": f"headrace-{name}+{PREDICTOR}" for name in off},
    }


def simulated(cell: Cell, policy: str, seed: int, arrivals: Sequence[Arrival], settings: Mapping[str, Any]) -> Result:
    """policy: the simulator's name for it."""
    queue = PLANNING | {name: value for name, value in settings.items() if name != SHEPHERD_FACTOR}
    with _shepherd(settings.get(SHEPHERD_FACTOR)):
        return simulate(cell.scenario(), policy, seed, arrivals=arrivals, settings=queue)


@contextmanager
def _shepherd(factor: float | None) -> Iterator[None]:
    """The baseline with another factor, in this process, for as long as it runs."""
    before = PLANNERS.get("shepherd")
    if factor is not None:
        PLANNERS["shepherd"] = Shepherd(factor)
    try:
        yield
    finally:
        if factor is not None and before is not None:
            PLANNERS["shepherd"] = before


def carry_out(run: Run) -> dict[str, Any]:
    """The row of a run. Raises what simulate() raises."""
    arrivals = run.cell.arrivals(run.seed)
    policy = policies(run.cell.shape)[run.policy]
    return row_of(simulated(run.cell, policy, run.seed, arrivals, dict(run.settings)), run.cell.horizon_s)


def row_of(result: Result, horizon_s: float) -> dict[str, Any]:
    requests, met = result.requests, result.met()
    in_time = requests.finished & (np.nan_to_num(requests.end_s, nan=np.inf) <= horizon_s)
    counters = result.counters
    return {
        "requests": len(requests),
        "attainment": share(met),
        "by_class": {name: share(met[requests.slo_class == at]) for at, name in enumerate(CLASSES)},
        "throughput_rps": float(in_time.sum()) / horizon_s,  # whole answers while requests come
        "utilisation": _busy(result, horizon_s),
        "swaps": counters.get("swaps", 0.0),
        "evictions": counters.get("evictions", 0.0),
        "plans": counters.get("plans", 0.0),
        "planner_s": result.planner_s,
        "wall_s": result.wall_s,
    }


def share(met: Any) -> float:
    return float(met.mean()) if len(met) else float("nan")


def _busy(result: Result, horizon_s: float) -> float:
    """Share of the instances' time, while requests come, in which they computed."""
    while_coming = result.t_s <= horizon_s
    busy = np.sum([pool.busy_share * pool.instances for pool in result.pools], axis=0)
    there = np.sum([pool.instances for pool in result.pools], axis=0)
    total = float(np.sum(there[while_coming]))
    return float(np.sum(busy[while_coming])) / total if total else float("nan")
