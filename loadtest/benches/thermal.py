"""Thermal controllers on a hot hour: time over the limit, what waits for it, what it costs in energy.

Single GPUs (the top-level figures), servers of eight that share their air, and single GPUs that are just what the
controllers' model says; then families of randomised plants with the learnt controllers among them. `none` leaves all to
the GPU's own slowdown: nobody's queue can be shorter.
"""

import argparse
import time
from typing import Any

import numpy as np

from headrace.control.constants import H100
from headrace.control.thermal import CONTROLLERS, DEFAULT
from headrace.control.thermal.network import NETWORKS, Network
from headrace.control.trial import Hour
from headrace.control.trial import run as run_trial
from headrace.report.provenance import plain
from loadtest.benches.report import finish, say
from loadtest.benches.thermal_learnt import SLOW, compared, families, intervals, learnt, line, verdict
from loadtest.benches.thermal_scene import MATCHED, Scene, run, trial
from loadtest.benches.thermal_steps import step_costs

SEEDS, QUICK_SEEDS, QUICK_SECONDS = 20, 4, 3_000
FAMILY_SECONDS = 600
# The transformers' rows and the linear programs of servers would take most of a quick run.
QUICK_NETWORKS, QUICK_SERVER = ("distilled",), tuple(name for name in CONTROLLERS if name != "mpc")
PARTS = ("single", "server", "matched", "families")
LOOP_GPUS, LOOPS = 10_000, 20


def scenes(seeds: tuple[int, ...], seconds: int) -> dict[str, Scene]:
    return {
        "single": Scene(1, seeds, seconds=seconds),
        "server": Scene(8, seeds, seconds=seconds),
        "matched": Scene(1, seeds, MATCHED, seconds),
    }


def measure(scene: Scene, names: tuple[str, ...], networks: dict[str, Network]) -> dict[str, Hour]:
    hours = {name: run(scene, CONTROLLERS[name](H100, len(scene.seeds) * scene.gpus)) for name in names}
    of = trial(scene)
    hours |= {name: run_trial(of, make(of)) for name, make in learnt(networks).items()}
    for name, hour in hours.items():
        say(line(name, hour.figures()))
    return hours


def figures(hours: dict[str, Hour]) -> dict[str, Any]:
    floor = hours["none"].figures()["queue_mean"]
    return {
        name: of | {"ci95": intervals(hours[name]), "above_floor": of["queue_mean"] / floor - 1.0}
        for name, of in ((name, hour.figures()) for name, hour in hours.items())
    }


def loop_ms(gpus: int = LOOP_GPUS) -> float:
    """Median milliseconds of the default controller's step for so many GPUs."""
    from headrace.control.thermal import Observed

    controller, rng = CONTROLLERS[DEFAULT](H100, gpus), np.random.default_rng(0)
    took = []
    for _ in range(LOOPS):
        seen = Observed(
            rng.uniform(60, 90, gpus), rng.uniform(120, 700, gpus), rng.random(gpus), rng.random(gpus), np.ones(gpus)
        )
        began = time.perf_counter()
        controller.act(seen)
        took.append(1e3 * (time.perf_counter() - began))
    return float(np.median(took))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="headrace bench thermal", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="4 seeds, without transformers and MPC of servers")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts of it; all unless said")
    args = parser.parse_args(argv)
    seeds = tuple(range(1, (QUICK_SEEDS if args.quick else SEEDS) + 1))
    networks = {name: Network(name) for name in NETWORKS}
    # What a step costs is measured before all else: what follows heats the machine.
    costs = step_costs(networks)
    for name, cost in costs.items():
        say(f"a step of {name} for {cost['gpus']} GPUs: {cost['p50_ms']:.2f} ms, p99 {cost['p99_ms']:.2f}")
    run_here = {name: networks[name] for name in (QUICK_NETWORKS if args.quick else NETWORKS)}
    short = {name: network for name, network in run_here.items() if name != SLOW}
    by_scene: dict[str, dict[str, Hour]] = {}
    for name, scene in scenes(seeds, QUICK_SECONDS if args.quick else 3_600).items():
        if name in args.only:
            say(f"{name}: {len(seeds)} plants of {scene.gpus}, {scene.seconds} s")
            names = QUICK_SERVER if args.quick and name == "server" else tuple(CONTROLLERS)
            by_scene[name] = measure(scene, names, short if name == "single" else {})
    by_family = families(run_here, seeds, FAMILY_SECONDS) if "families" in args.only else {}
    single = by_scene.pop("single", {})
    paired = compared(({"single": single} if single else {}) | by_family)
    verdicts = {name: verdict(name, paired) for name in run_here if any(name in of for of in paired.values())}
    for name, one in verdicts.items():
        say(f"{name}: {one['verdict']}")
    took_ms = loop_ms()
    say(f"a step of {DEFAULT} for {LOOP_GPUS:,} GPUs: {took_ms:.2f} ms")
    if args.json:
        more = {name: figures(hours) for name, hours in by_scene.items()} | {
            "families": {name: figures(hours) for name, hours in by_family.items()},
            "paired": paired,
            "verdicts": verdicts,
            "step_costs": costs,
            "loop_ms_10000_gpus": took_ms,
        }
        finish("thermal", argv, list(seeds), plain({**(figures(single) if single else {}), **more}))
    return 0
