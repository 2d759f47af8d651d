"""How many promises the queue keeps: three workloads at four loads, every policy, in the simulator; some cells live.

Workloads, fleets and classes are QLM's as far as they are known (queue_workloads). Loads are shares of each fleet's
measured saturation (queue_saturation). Knobs are tuned on other seeds, with as many settings each (queue_tuning).
Beside the policies: the best schedule that a search with ten times a run's budget finds, everything known
(queue_clairvoyant), and bounds that no schedule passes (queue_bound).
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from headrace.sim.sweep import cores
from loadtest.benches import queue_live, queue_tuning
from loadtest.benches.queue_clairvoyant import REPLAYS, Search
from loadtest.benches.queue_figures import figures, table, verdicts
from loadtest.benches.queue_live import Live, LiveRun
from loadtest.benches.queue_rows import Job, work
from loadtest.benches.queue_runs import CLOCKS, PLANNING, PREDICTOR, Cell, Run, policies
from loadtest.benches.queue_saturation import Question
from loadtest.benches.queue_workloads import DRAIN_S, HORIZON_S, LOADS, MAX_TOKENS, WORKLOADS
from loadtest.benches.report import finish, say
from loadtest.rows import Rows

SEEDS, FEW_SEEDS = 20, 4
MAIN = ("fcfs", "edf", "shepherd", "headrace")


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of the grid is run."""

    workloads: tuple[str, ...] = tuple(WORKLOADS)
    loads: tuple[float, ...] = LOADS
    seeds: int = SEEDS  # of MAIN
    few_seeds: int = FEW_SEEDS  # of the planner's other variants and of the search for the best schedule
    horizon_s: float = HORIZON_S
    policies: tuple[str, ...] = ()  # empty: all that a workload has
    saturation_s: float = 3_600.0
    saturation_steps: int = 6
    tune: tuple[str, ...] = tuple(queue_tuning.GRIDS)
    replays: int = REPLAYS
    bound_steps: int = 200


QUICK = Extent(
    workloads=("W_A", "W_B"),
    loads=(1.2,),
    seeds=2,
    horizon_s=600.0,
    policies=MAIN,
    saturation_s=600.0,
    saturation_steps=3,
    tune=(),
    replays=3,
    bound_steps=60,
)


def saturation(extent: Extent, rows: Rows[Job]) -> dict[str, float]:
    say(f"saturation of {', '.join(extent.workloads)} ...")
    questions: list[Job] = [Question(name, extent.saturation_s, extent.saturation_steps) for name in extent.workloads]
    rates_rps = {job.workload: row["rps"] for job, row in rows.of(questions) if isinstance(job, Question)}
    for name, rps in rates_rps.items():
        say(f"  {name}: {rps:.3f} requests/s: {rps * extent.horizon_s:.0f} in {extent.horizon_s / 3600:g} h at 1.0")
    return rates_rps


def measure(extent: Extent, rows: Rows[Job], rates_rps: dict[str, float]) -> dict[str, Any]:
    tuned = _tuned(extent, rates_rps, rows) if extent.tune else {}
    cells = [Cell(name, load, load * rps, extent.horizon_s) for name, rps in rates_rps.items() for load in extent.loads]
    jobs = [job for seed in range(1, extent.seeds + 1) for cell in cells for job in _jobs(extent, cell, seed, tuned)]
    say(f"{len(jobs)} runs on {cores()} cores ...")
    found = rows.of(jobs)
    out: dict[str, Any] = {"workloads": {}, "bounds": {}, "wanted": {}}
    for cell in cells:
        told = figures(_by_policy(cell, found))
        if not told:
            continue
        load = f"{cell.load:g}"
        for line in table(cell.workload, load, told):
            say(line)
        out["wanted"].setdefault(cell.workload, {})[load] = verdicts(cell.workload, told)
        out["bounds"].setdefault(cell.workload, {})[load] = told.pop("bound", None)
        out["workloads"].setdefault(cell.workload, {})[load] = told
    return out | {
        "saturation_rps": rates_rps,
        "tuned": tuned,
        "horizon_s": extent.horizon_s,
        "extent": asdict(extent),
        "assumed": assumed(extent),
        "failed": rows.failed,
    }


def live(extent: Extent, rows: Rows[Job], cells: Sequence[Live]) -> dict[str, Any]:
    """One mesh after the other: each has the machine to itself."""
    runs = rows.of(queue_live.jobs(cells, extent.policies), processes=1)
    return queue_live.by_cell((job, row) for job, row in runs if isinstance(job, LiveRun))


def _jobs(extent: Extent, cell: Cell, seed: int, tuned: dict[str, Any]) -> list[Job]:
    names = [name for name in policies(cell.shape) if not extent.policies or name in extent.policies]
    few = seed <= extent.few_seeds
    runs: list[Job] = [
        Run(cell, name, seed, _settings(tuned, cell.workload, name)) for name in names if few or name in _main(cell)
    ]
    return [*runs, Search(cell, seed, extent.replays, extent.bound_steps)] if few else runs


def _main(cell: Cell) -> tuple[str, ...]:
    """An order that changes models at every turn keeps next to nothing, whatever the seed, and takes minutes."""
    return MAIN if len(cell.shape.models) == 1 else MAIN[2:]


def _settings(tuned: dict[str, Any], workload: str, policy: str) -> tuple[tuple[str, Any], ...]:
    """Every variant of the planner has the planner's own."""
    family = "headrace" if policy.startswith("headrace") else policy
    return tuple(tuned.get(workload, {}).get(family, {}).get("settings", {}).items())


def _tuned(extent: Extent, rates_rps: dict[str, float], rows: Rows[Job]) -> dict[str, Any]:
    jobs = queue_tuning.jobs(rates_rps, extent.horizon_s, extent.tune)
    say(f"tuning: {len(jobs)} runs on seeds {', '.join(map(str, queue_tuning.SEEDS))} ...")
    found = [(job, row) for job, row in rows.of(jobs) if isinstance(job, Run)]
    tuned = queue_tuning.chosen(found, extent.tune)
    for workload, by_policy in tuned.items():
        say(f"  {workload}: " + "; ".join(f"{name} {each['settings']}" for name, each in by_policy.items()))
    return tuned


def _by_policy(cell: Cell, found: Sequence[tuple[Job, dict[str, Any]]]) -> dict[str, dict[int, dict[str, Any]]]:
    out: dict[str, dict[int, dict[str, Any]]] = {}
    for job, row in found:
        if isinstance(job, Run | Search) and job.cell == cell:
            out.setdefault(job.policy if isinstance(job, Run) else "clairvoyant", {})[job.seed] = row
    return out


def assumed(extent: Extent) -> dict[str, Any]:
    """All that no source says."""
    return {
        "workloads": {name: asdict(WORKLOADS[name]) for name in extent.workloads},
        "lengths": "azure-conv-input and azure-conv-output of headrace.workload, drawn independently",
        "max_tokens": MAX_TOKENS,
        "arrivals": "Poisson",
        "classes": "headrace.core.slo",
        "drain_s": DRAIN_S,
        "clocks_s": CLOCKS,
        "planning": PLANNING,
        "lengths_predicted_by": PREDICTOR,
        "clairvoyant": "best of the search and of every policy's own run, by seed",
        "throughput": "whole answers while requests come, a second of that time",
    }


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    args = _arguments(argv)
    extent = QUICK if args.quick else Extent()
    changes: dict[str, Any] = {
        "workloads": tuple(args.workloads),
        "loads": tuple(args.loads),
        "seeds": args.seeds,
        "policies": tuple(args.policies),
        "horizon_s": args.horizon_s,
        "saturation_s": args.saturation_s,
        "replays": args.replays,
    }
    extent = replace(extent, **{name: value for name, value in changes.items() if value})
    if args.tune is not None:
        extent = replace(extent, tune=tuple(args.tune))
    if args.few_seeds >= 0:
        extent = replace(extent, few_seeds=args.few_seeds)
    rows = Rows(args.rows, work)
    rates_rps = saturation(extent, rows)
    found = {} if args.live_only else measure(extent, rows, rates_rps)
    if args.live or args.live_only:
        found["live"] = live(extent, rows, queue_live.cells(rates_rps, extent.loads, args.live_scale))
    if args.json:
        finish("queue", argv, list(range(1, extent.seeds + 1)), found)
    return 1 if rows.failed else 0


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="headrace bench queue", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
    parser.add_argument("--quick", action="store_true", help="two cells of ten minutes, two seeds: under 60 s")
    parser.add_argument("--workloads", nargs="+", choices=tuple(WORKLOADS), default=(), help="instead of all")
    parser.add_argument("--loads", nargs="+", type=float, default=(), help="of saturation, instead of all")
    parser.add_argument("--policies", nargs="+", default=(), help="names of the report, instead of all, live too")
    parser.add_argument("--seeds", type=int, default=0, help=f"instead of {SEEDS}")
    parser.add_argument("--horizon-s", type=float, default=0.0, help=f"of arrivals, instead of {HORIZON_S:g}")
    parser.add_argument("--saturation-s", type=float, default=0.0, help="of each try at a rate, instead of 3600")
    parser.add_argument("--replays", type=int, default=0, help=f"of the clairvoyant search, instead of {REPLAYS}")
    parser.add_argument(
        "--few-seeds",
        type=int,
        default=-1,
        help=f"of all but {', '.join(MAIN)}, instead of {FEW_SEEDS}; 0: those alone",
    )
    parser.add_argument(
        "--tune",
        nargs="*",
        choices=tuple(queue_tuning.GRIDS),
        default=None,
        help="instead of all; the others: defaults",
    )
    parser.add_argument("--rows", type=Path, default=None, help="keep every run's figures here, and go on from them")
    parser.add_argument("--live", action="store_true", help="also the cells on a live mesh with the profile engine")
    parser.add_argument("--live-only", action="store_true", help="those alone")
    parser.add_argument(
        "--live-scale", type=float, default=0.0, help="how many times faster than the clock; 0: as planned"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
