"""Knobs of the planner and of the baseline, tuned alike: as many settings each, on seeds that are not evaluated.

Orders without knobs (fcfs, edf) have nothing to tune. The chosen setting is the one with the highest mean attainment
over the workload's tuning cells; where two are as good, the one that stands first: the default.
"""

from collections.abc import Callable, Sequence
from itertools import product
from statistics import fmean
from typing import Any

from loadtest.benches.queue_runs import Cell, Run

SEEDS = (2_001, 2_002)
LOADS = (1.0, 1.2)
Settings = tuple[tuple[str, Any], ...]


def _grid(**values: Sequence[Any]) -> tuple[Settings, ...]:
    return tuple(tuple(zip(values, each, strict=True)) for each in product(*values.values()))


# The defaults stand first. Nine each.
GRIDS: dict[str, tuple[Settings, ...]] = {
    "headrace": _grid(bound_z=(1.28, 0.0, 2.33), group_batches=(4.0, 1.0, 16.0)),
    "shepherd": tuple((("shepherd_factor", factor),) for factor in (3.0, 1.0, 1.25, 1.5, 2.0, 4.0, 6.0, 10.0, 100.0)),
}


def jobs(rates_rps: dict[str, float], horizon_s: float, policies: Sequence[str]) -> list[Run]:
    """rates_rps: saturation by workload. policies: of GRIDS."""
    return [
        Run(Cell(workload, load, load * rate_rps, horizon_s), policy, seed, settings)
        for workload, rate_rps in rates_rps.items()
        for policy in policies
        for settings in GRIDS[policy]
        for load in LOADS
        for seed in SEEDS
    ]


def chosen(rows: Sequence[tuple[Run, dict[str, Any]]], policies: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """{workload: {policy: {"settings", "attainment", "tried": [...]}}}"""
    out: dict[str, dict[str, dict[str, Any]]] = {}
    for workload in dict.fromkeys(run.cell.workload for run, _ in rows):
        for policy in policies:
            tried: list[dict[str, Any]] = [
                {"settings": dict(settings), "attainment": _mean(rows, _is(workload, policy, settings))}
                for settings in GRIDS[policy]
            ]
            best = max(tried, key=lambda each: each["attainment"])  # the first of equals
            out.setdefault(workload, {})[policy] = {**best, "tried": tried}
    return out


def _is(workload: str, policy: str, settings: Settings) -> Callable[[Run], bool]:
    return lambda run: (run.cell.workload, run.policy, run.settings) == (workload, policy, settings)


def _mean(rows: Sequence[tuple[Run, dict[str, Any]]], which: Callable[[Run], bool]) -> float:
    values = [row["attainment"] for run, row in rows if which(run)]
    return fmean(values) if values else float("nan")
