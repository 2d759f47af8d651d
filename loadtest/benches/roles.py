"""Roles that follow the load against workers that keep theirs, on a load whose work moves from prefill to decode.

`loadtest/scenarios/shifting.toml` on the same GPUs: every worker doing both, splits that stay, and roles that change.
Good is a request that was answered whole, its first token and its tokens' mean distance within the class's targets.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from headrace.report.compare import estimate
from headrace.sim.result import Result
from headrace.sim.sweep import Job, Outcome, Simulating, sweep
from headrace.workload.fleet import Fleet
from headrace.workload.scenario import Scenario, read
from loadtest.benches.report import finish, say

SCENARIO, SHIFT_S = "shifting", 600.0
SEEDS = (1, 2, 3, 4, 5)
SPLITS = ((1, 3), (2, 2), (3, 1))  # prefill and decode workers, of four


def fleets(fleet: Fleet) -> Iterator[tuple[str, Fleet]]:
    (pool,) = fleet.pools
    yield "elastic", fleet
    yield "both", replace(fleet, roles="fixed")
    for prefill, decode in SPLITS:
        pools = (
            replace(pool, name="prefill", stages=("prefill",), count=prefill),
            replace(pool, name="decode", stages=("decode",), count=decode),
        )
        yield f"{prefill}:{decode}", replace(fleet, roles="fixed", pools=pools)


def figures(result: Result) -> dict[str, float]:
    """By phase: 1 is prefill's, 2 is decode's."""
    requests, (slo,) = result.requests, result.classes
    with np.errstate(invalid="ignore"):
        good = result.met() & ~(requests.tbt_s > slo.tbt_s)
    found = {
        "goodput_rps": float(good.sum()) / result.duration_s,
        "tbt_gap_p99_s": result.tbt.percentile(0.99),
        "role_changes": result.counters["role_changes"],
        "gpu_hours": result.gpu_hours,
    }
    for name, of in (("", requests.arrival_s >= 0), ("1_", requests.arrival_s < SHIFT_S)):
        found |= _phase(name, requests.ttft_s[of], requests.tbt_s[of], good[of])
    later = requests.arrival_s >= SHIFT_S
    return found | _phase("2_", requests.ttft_s[later], requests.tbt_s[later], good[later])


def _phase(name: str, ttft_s: Any, tbt_s: Any, good: Any) -> dict[str, float]:
    return {
        f"{name}good": float(good.mean()),
        f"{name}ttft_p50_s": float(np.nanquantile(ttft_s, 0.5)),
        f"{name}ttft_p99_s": float(np.nanquantile(ttft_s, 0.99)),
        f"{name}tbt_p99_s": float(np.nanquantile(tbt_s, 0.99)),
    }


def jobs(scenario: Scenario, policy: str, scales: list[float], seeds: tuple[int, ...]) -> list[Job]:
    assert scenario.fleet is not None
    return [
        Job(replace(scenario.changed(scale=scale), fleet=fleet), policy, seed, f"{name} x{scale:g}")
        for scale in scales
        for seed in seeds
        for name, fleet in fleets(scenario.fleet)
    ]


def _row(label: str, runs: list[Mapping[str, float]]) -> dict[str, Any]:
    means = {key: estimate([run[key] for run in runs]) for key in runs[0]}
    say(f"{label:14} " + "  ".join(f"{key} {means[key].mean:.3f}" for key in means))
    return {"fleet": label, "runs": len(runs)} | {
        key: {"mean": value.mean, "half": value.half} for key, value in means.items()
    }


def _told(outcome: Outcome[Job, dict[str, float]]) -> None:
    if outcome.value is not None:
        say(f"  {outcome.job}: {outcome.value['good']:.4f} good, {outcome.value['role_changes']:.0f} changes of roles")


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="headrace bench roles", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
    parser.add_argument("--quick", action="store_true", help="a fifth of the load's time, one seed, under 60 s")
    parser.add_argument("--policy", default="fcfs", help="of the queue")
    parser.add_argument("--scale", type=float, nargs="+", default=[1.0], help="the load, times these")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    args = parser.parse_args(argv)
    scenario, seeds = read(SCENARIO), SEEDS[:1] if args.quick else SEEDS
    asked = jobs(scenario, args.policy, args.scale[:1] if args.quick else args.scale, seeds)
    if args.quick:
        asked = [job for job in asked if job.label.startswith(("elastic", "both"))]
    found: dict[str, list[Mapping[str, float]]] = {}
    for outcome in sweep(asked, Simulating(figures), processes=args.jobs, seen=_told):
        if outcome.value is None:
            sys.exit(f"{outcome.job}: {outcome.error}")
        found.setdefault(outcome.job.label, []).append(outcome.value)
    rows = [_row(label, runs) for label, runs in found.items()]
    if args.json:
        finish("roles", argv, list(seeds), {"policy": args.policy, "rows": rows})


if __name__ == "__main__":
    main()
