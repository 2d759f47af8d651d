"""The budget game beside a central allocator and an equal split: goodput, fairness, what anybody gains by leaving.

Tenants that share a row, and the stage pools of one model; utilities known to all or private, the governor down, a
wrong model of the load. A learnt policy ships only where it beats every simple scheme by 3 % in goodput or energy, over
all seeds, without a violation more.
"""

import argparse
import math
from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np

from headrace.budgets.stages import EMERGENCY
from headrace.report.provenance import plain
from loadtest.benches import budget_game_run as run
from loadtest.benches.budget_game_scene import World, guess, pool_loads, pools, recorded, tenant_loads, tenants
from loadtest.benches.budget_game_schemes import live
from loadtest.benches.report import finish, say

SEEDS, QUICK_SEEDS = 20, 3
ITERATIONS, QUICK_ITERATIONS = 2_000, 500
SIMULATED_S, QUICK_SIMULATED_S = 40.0, 6.0  # for each point of a tenant's table
BUDGET = 0.5  # of all watts at full speed [I]; chosen before anything was run
OTHER_BUDGETS = (0.4, 0.67)
SHIPS = 0.03
HOLDS = 0.005  # of goodput that a scheme may lose when it saves energy
Rows = dict[str, dict[str, list[dict[str, float]]]]  # scenario, scheme, one each seed


def one_seed(world: World, loads: np.ndarray, budget: float, iterations: int, seed: int, *, all_of_it: bool) -> Rows:
    case = run.case_of(world, loads, budget, iterations, seed)
    made = run.policies(case)
    found: Rows = defaultdict(lambda: defaultdict(list))

    def take(scenario: str, of: run.Case, schemes: run.Schemes, *, late: bool = False) -> None:
        for name, scheme in schemes:
            given = live(world, of.play, of.limit, scheme, late=late)
            found[scenario][name].append(run.figures(of, name, given))

    take("known", case, run.known(case, made))
    for name, policy in made.items():
        found["known"][name][-1]["gap"] = policy.gap
    if all_of_it:
        take("late", case, run.known(case, made), late=True)
        calm = replace(case, emergency=False)
        take("down", calm, run.down(calm, made))
        harder = run.wrong(case)
        take("wrong model", harder, run.known(harder, run.policies(harder)))
        if world.together == "mean":
            take("private", case, run.private(case, guess(world)))
            found["known"]["central"][-1]["gain_by_lying"] = run.lie(case)
    return found


def summary(rows: list[dict[str, float]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in rows[0]:
        values = np.array([row[key] for row in rows])
        found[key] = float(values.sum()) if key == "violations" else float(values.mean())
    found["ci95"] = {key: _half([row[key] for row in rows]) for key in rows[0] if key != "violations"}
    return found


def _half(values: list[float]) -> float:
    return float(1.96 * np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else float("nan")


def verdict(schemes: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Of the learnt schemes the one with the best goodput that beats every simple one, in goodput, or in energy at no
    loss of goodput; where none does, the one with the best goodput."""
    learnt = sorted(
        (name for name in schemes if "ftrl" in name and not name.startswith("(")),
        key=lambda name: -_mean(schemes[name], "goodput"),
    )
    found = {name: _against(schemes, name) for name in learnt}
    ships = [name for name, against in found.items() if all(beside["beats"] for beside in against.values())]
    best = (ships or learnt)[0]
    return {"scheme": best, "against": found[best], "ships": bool(ships)}


def _against(schemes: dict[str, list[dict[str, float]]], learnt: str) -> dict[str, Any]:
    simple = {name: rows for name, rows in schemes.items() if "ftrl" not in name and not name.startswith("(")}
    return {name: _compared(schemes[learnt], rows) for name, rows in simple.items()}


def _compared(rows: list[dict[str, float]], base: list[dict[str, float]]) -> dict[str, Any]:
    more, less = _beside(rows, base, "goodput"), _beside(rows, base, "energy")
    added = _violations(rows) - _violations(base)
    wins = more[0] >= SHIPS and more[0] > more[1]
    saves = less[0] <= -SHIPS and -less[0] > less[1] and more[0] >= -HOLDS
    return {
        "goodput": more[0],
        "goodput_ci95": more[1],
        "energy": less[0],
        "energy_ci95": less[1],
        "violations_added": added,
        "beats": bool((wins or saves) and added <= 0),
    }


def _violations(rows: list[dict[str, float]]) -> float:
    return sum(row["violations"] for row in rows)


def _mean(rows: list[dict[str, float]], key: str) -> float:
    return float(np.mean([row[key] for row in rows]))


def _beside(rows: list[dict[str, float]], base: list[dict[str, float]], key: str) -> tuple[float, float]:
    """Relative difference, paired by seed, and its half width."""
    each = [row[key] / max(other[key], 1e-9) - 1.0 for row, other in zip(rows, base, strict=True)]
    return float(np.mean(each)), _half(each)


def measure(world: World, loads_of: Any, seeds: list[int], iterations: int, budget: float, *, all_of_it: bool) -> Any:
    gathered: Rows = defaultdict(lambda: defaultdict(list))
    for seed in seeds:
        for scenario, schemes in one_seed(world, loads_of(seed), budget, iterations, seed, all_of_it=all_of_it).items():
            for name, rows in schemes.items():
                gathered[scenario][name] += rows
    found: dict[str, Any] = {}
    for scenario, schemes in gathered.items():
        found[scenario] = {name: summary(rows) for name, rows in schemes.items()}
        found[scenario]["verdict"] = verdict(schemes)
        _tell(scenario, found[scenario])
    return found


def _tell(scenario: str, of: dict[str, Any]) -> None:
    say(f"  {scenario}")
    for name, each in of.items():
        if name == "verdict":
            continue
        say(
            f"    {name:42} goodput {each['goodput']:.3f} +-{each['ci95']['goodput']:.3f}  "
            f"energy {each['energy']:.3f}  worst {each['worst']:.3f}  Jain {each['jain']:.3f}  "
            f"gain by leaving {each['gain']:.3f} (net {each['gain_net']:.3f})  violations {each['violations']:.0f}"
        )
    last = of["verdict"]
    say(f"    verdict: {last['scheme']} {'ships' if last['ships'] else 'does not ship'}")
    for name, beside in last["against"].items():
        say(
            f"      beside {name}: goodput {beside['goodput']:+.1%} +-{beside['goodput_ci95']:.1%}, energy "
            f"{beside['energy']:+.1%} +-{beside['energy_ci95']:.1%}, {beside['violations_added']:.0f} violations added"
        )


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="headrace bench budget-game", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    seeds = list(range(1, (QUICK_SEEDS if args.quick else SEEDS) + 1))
    iterations = QUICK_ITERATIONS if args.quick else ITERATIONS
    say("tenants: what watts are worth to each, by the request simulator")
    shared = tenants(QUICK_SIMULATED_S if args.quick else SIMULATED_S)
    worlds = {"tenants": (shared, tenant_loads), "pools": (pools(), pool_loads)}
    found: dict[str, Any] = {"recorded_arrivals": recorded(), "budget": BUDGET, "emergency": EMERGENCY}
    for name, (world, loads_of) in worlds.items():
        say(f"{name}, a budget of {BUDGET:.0%}, {len(seeds)} seeds")
        found[name] = measure(world, loads_of, seeds, iterations, BUDGET, all_of_it=True)
        for budget in () if args.quick else OTHER_BUDGETS:
            say(f"{name}, a budget of {budget:.0%}")
            found[f"{name} at {budget:g}"] = measure(world, loads_of, seeds, iterations, budget, all_of_it=False)
    if args.json:
        finish("budget-game", argv, seeds, plain(found))
    return 0
