"""QLM's fleet and its three workloads at any scale: 30 A10 and 50 A100 are 1, and what of it a workload can use.

Workloads are `bench queue`'s (queue_workloads); only the number of instances differs.
"""

from dataclasses import dataclass, replace
from typing import Any

from loadtest.benches import queue_saturation
from loadtest.benches.queue_runs import Cell, policies, row_of, simulated
from loadtest.benches.queue_saturation import Question, saturation_rps
from loadtest.benches.queue_workloads import WORKLOADS, Workload

A10, A100 = 30, 50  # GPUs [T]
FULL = 1.0
EIGHTH = 0.125
REQUESTS = 3_500  # of a trace [T]
REPLAN_S = 2.0  # live a plan is asked for each second; a plan takes wall time here


def workload(name: str, scale: float) -> Workload:
    """At least one instance of each kind."""
    plain, gpus = WORKLOADS[name], {"a10": A10, "a100": A100}
    pools = [
        {**pool, "count": max(1, int(gpus[pool["gpu"]] * scale / pool["tp"] + 0.5 * (scale < FULL)))}
        for pool in plain.pools
    ]
    return replace(plain, pools=tuple(pools))


def fleet(name: str, scale: float) -> dict[str, int]:
    """GPUs in use, by pool."""
    return {pool["name"]: pool["count"] * pool["tp"] for pool in workload(name, scale).pools}


@dataclass(frozen=True, slots=True)
class Place(Cell):
    """A cell of `bench queue` on a fleet of another size."""

    scale: float = EIGHTH

    @property
    def shape(self) -> Workload:
        return workload(self.workload, self.scale)

    def __str__(self) -> str:
        return f"{self.workload} at {self.load:g} on {self.scale:g} of the fleet"


@dataclass(frozen=True, slots=True)
class Saturation(Question):
    """Of a fleet of another size."""

    scale: float = EIGHTH

    def cell(self, rate_rps: float) -> Place:
        return Place(self.workload, 1.0, rate_rps, self.horizon_s, self.scale)

    def __str__(self) -> str:
        return f"saturation of {self.workload} on {self.scale:g} of the fleet"


def carried(question: Saturation) -> dict[str, float]:
    """Requests a second, and of what the costs alone allow."""
    rps = saturation_rps(question)
    return {"rps": rps, "of_ideal": rps / queue_saturation.ideal_rps(question)}


def ideal_rps(name: str, scale: float, horizon_s: float = 3_600.0) -> float:
    return queue_saturation.ideal_rps(Saturation(name, horizon_s, scale=scale))


@dataclass(frozen=True, slots=True)
class Trial:
    """A policy on a cell; its name is queue_runs.policies()', or of a queue for each instance (vq-fcfs, vq-edf)."""

    place: Place
    policy: str
    seed: int

    def __str__(self) -> str:
        return f"{self.place}, {self.policy}, seed {self.seed}"


def carry_out(trial: Trial) -> dict[str, Any]:
    place = trial.place
    policy = policies(place.shape).get(trial.policy, trial.policy)
    asked = {"replan_s": REPLAN_S} if policy.startswith(("headrace", "shepherd", "vq-")) else {}
    return row_of(simulated(place, policy, trial.seed, place.arrivals(trial.seed), asked), place.horizon_s)
