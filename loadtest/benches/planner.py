"""How long planning takes and how good it is: decisions on the request path, plans, and their gap to the optimum.

decision: one new group among 1,000 that wait, by the planner that the mesh runs. replan: the whole search with the
planner's usual budget; requests in a group cost nothing, so 10^3 to 10^6 requests are tried at each number of groups.
gap: the search against the cheapest plan there is (enumerated, exact in the same cost), and against the linear program.
Times are given on the wall, and as CPU time of this process (`cpu`), which a busy machine changes less.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from time import perf_counter, process_time
from typing import Any

import numpy as np

from headrace.core.planning import exact, milp
from headrace.core.planning.base import Planner
from headrace.core.planning.board import Board
from headrace.core.planning.cost import Terms
from headrace.core.planning.edf import Edf
from headrace.core.planning.fcfs import Fcfs
from headrace.core.planning.headrace import Headrace
from headrace.core.planning.heuristic import BUDGET, replan, search
from headrace.core.planning.shepherd import Shepherd
from headrace.report.provenance import plain
from loadtest.benches.planner_problems import random_problem
from loadtest.benches.report import finish, percentile, say

WAITING = 1_000  # groups, at a decision
SITES = (1, 8, 64)  # instances, at a decision
GROUPS = (10, 100, 1_000)
REQUESTS = (1_000, 10_000, 100_000, 1_000_000)
# Groups and instances of the problems whose optimum is looked for; loads in minutes of work for each instance.
SIZES = ((5, 1), (6, 2), (7, 2), (8, 2), (8, 3), (9, 3), (9, 4), (10, 2))
PROGRAMS = ((4, 2), (6, 2), (8, 2), (8, 4))  # sizes for the mixed-integer program
LOADS = (0.25, 0.5, 0.8, 1.2, 2.0)
PLANNERS: tuple[Planner, ...] = (Fcfs(), Edf(), Shepherd())


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="headrace bench planner", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
    parser.add_argument("--quick", action="store_true", help="fewer decisions, plans and problems: under 60 s")
    parser.add_argument("--instances", type=int, default=0, help="random problems whose optimum is looked for (200)")
    args = parser.parse_args(argv)
    count = args.instances or (24 if args.quick else 200)
    found = decisions(60 if args.quick else 1_000, SITES[1:2] if args.quick else SITES)
    found |= replans(REQUESTS[1:2] if args.quick else REQUESTS, 1 if args.quick else 3)
    found |= gaps(count, SIZES[:3] if args.quick else SIZES)
    found |= programs(*((2, PROGRAMS[:2]) if args.quick else (40, PROGRAMS)))
    if args.json:
        finish("planner", argv, list(range(count)), plain(found))


def decisions(count: int, sites: tuple[int, ...]) -> dict[str, Any]:
    """Where one new group goes; the figure is that of the slowest number of instances."""
    by_sites = {}
    for instances in sites:
        problem = random_problem(0, WAITING, instances, load=2.0 * WAITING / instances / 50)
        board = Board.of(problem, replan(problem, 0).queues)
        new = random_problem(1, count, instances, load=2.0 * count / instances / 50).groups
        planner = Headrace()
        planner.insert(board, new[0], 0.0)
        times = [timed(partial(planner.insert, board, replace(group, id=-1), 0.0)) for group in new]
        wall, cpu = ([each[k] * 1e3 for each in times] for k in (0, 1))
        by_sites[instances] = {"p50_ms": percentile(wall, 0.5), "p99_ms": percentile(wall, 0.99)}
        by_sites[instances] |= {"cpu_p50_ms": percentile(cpu, 0.5), "cpu_p99_ms": percentile(cpu, 0.99)}
        said = ", ".join(f"{name} {value:.3f}" for name, value in by_sites[instances].items())
        say(f"a decision with {len(board)} groups on {instances} instances: {said}")
    worst = max(by_sites.values(), key=lambda each: each["p99_ms"])
    return {
        "decision_p99_ms": worst["p99_ms"],
        "decision_cpu_p99_ms": max(each["cpu_p99_ms"] for each in by_sites.values()),
        "decisions": count,
        "decision_by_instances": by_sites,
    }


def replans(requests: tuple[int, ...], repeats: int) -> dict[str, Any]:
    """A plan for all groups; by groups the median over the numbers of requests and repeats."""
    by_groups, cpu_by_groups, detail = {}, {}, {}
    for groups in GROUPS:
        walls, cpus = [], []
        for total in requests:
            each = max(1.0, total / groups)
            times = []
            for seed in range(repeats):
                problem = random_problem(seed, groups, 8, requests=(each, each * 1.01), placed=True)
                times.append(timed(partial(replan, problem)))
            detail[f"{groups}x{total}"] = {k: float(np.median([t[n] for t in times])) * 1e3 for n, k in TIMES}
            walls += [t[0] for t in times]
            cpus += [t[1] for t in times]
        by_groups[groups], cpu_by_groups[groups] = (float(np.median(each)) * 1e3 for each in (walls, cpus))
        say(f"a plan for {groups} groups: {by_groups[groups]:.0f} ms, CPU {cpu_by_groups[groups]:.0f} ms")
    return {
        "replan_ms": by_groups,
        "replan_cpu_ms": cpu_by_groups,
        "replan_by_requests": detail,
        "budget": BUDGET,
    }


TIMES = ((0, "ms"), (1, "cpu_ms"))


def gaps(count: int, sizes: tuple[tuple[int, int], ...]) -> dict[str, Any]:
    """(cost - optimum) / optimum of the search, of no moves at all, and of the baselines."""
    names = ["headrace", "no_moves", *(planner.name for planner in PLANNERS)]
    found: dict[str, list[float]] = {name: [] for name in names}
    late: dict[str, list[float]] = {name: [] for name in ("optimum", *names)}
    worst: tuple[float, str] = (0.0, "")
    for seed in range(count):
        (groups, instances), load = sizes[seed % len(sizes)], LOADS[seed // len(sizes) % len(LOADS)]
        problem = random_problem(seed, groups, instances, load=load)
        terms = Terms(problem)
        best, _ = exact.optimum(terms)
        late["optimum"].append(best)
        costs = {"headrace": terms.cost(search(terms)), "no_moves": terms.cost(search(terms, 0))}
        costs |= {planner.name: planner.replan(problem, 0).cost for planner in PLANNERS}
        for name, cost in costs.items():
            assert cost >= best - 1e-6 * max(1.0, best), f"{name} is better than the optimum at seed {seed}"
            found[name].append(max(0.0, cost - best) / best)
            late[name].append(cost)
        worst = max(worst, (found["headrace"][-1], f"seed {seed}: {groups} groups, {instances} instances, load {load}"))
        if seed % 20 == 19:
            say(f"{seed + 1} optima")
    summary = {
        name: {"median": float(np.median(of)), "max": max(of), "cost": sum(late[name])} for name, of in found.items()
    }
    for name, of in summary.items():
        say(f"{name:10} gap median {of['median']:.2%}, largest {of['max']:.2%}; sum of costs {of['cost']:.1f}")
    say(f"sum of optimal costs {sum(late['optimum']):.1f}")
    return {
        "gap_median": summary["headrace"]["median"],
        "gap_max": summary["headrace"]["max"],
        "gap_worst": worst[1],
        "optimal_share": float(np.mean([gap < 1e-6 for gap in found["headrace"]])),
        "instances": count,
        "gaps": summary,
        "cost_optimum": sum(late["optimum"]),
    }


def programs(count: int, sizes: tuple[tuple[int, int], ...]) -> dict[str, Any]:
    """How far the mixed-integer program comes within its node limit, by size, from a plan without moves."""
    by_size = {}
    for groups, instances in sizes:
        rows = []
        for seed in range(max(1, count // len(sizes))):
            terms = Terms(random_problem(seed, groups, instances, load=LOADS[seed % len(LOADS)]))
            known = search(terms, 0)
            wall_s, cpu_s, solved = timed_with(partial(milp.solve, terms, known, 500, 20.0))
            best, _ = exact.optimum(terms)
            cost = min(solved.cost, terms.cost(known))
            assert solved.bound <= best + 1e-4 * max(1.0, best), f"no bound at seed {seed}"
            rows.append((wall_s, cpu_s, solved.optimal, (cost - best) / best, solved.rounds))
        by_size[f"{groups}x{instances}"] = {
            "problems": len(rows),
            "proven_share": float(np.mean([row[2] for row in rows])),
            "gap_max": max(row[3] for row in rows),
            "median_ms": float(np.median([row[0] for row in rows])) * 1e3,
            "cpu_median_ms": float(np.median([row[1] for row in rows])) * 1e3,
            "cpu_max_ms": max(row[1] for row in rows) * 1e3,
            "rounds_most": max(row[4] for row in rows),
        }
        say(f"program, {groups} groups on {instances}: {by_size[f'{groups}x{instances}']}")
    return {"milp": by_size}


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the wall and of CPU."""
    return timed_with(work)[:2]


def timed_with(work: Callable[[], Any]) -> tuple[float, float, Any]:
    wall_s, cpu_s = perf_counter(), process_time()
    outcome = work()
    return perf_counter() - wall_s, process_time() - cpu_s, outcome


if __name__ == "__main__":
    main()
