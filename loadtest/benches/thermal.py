"""Thermal controllers on a hot hour: time over the limit, what waits for it, what it costs in energy.

Single GPUs (the top-level figures), servers of eight that share their air, and single GPUs that are just what the
controllers' model says. `none` leaves all to the GPU's own slowdown: nobody's queue can be shorter.
"""

import argparse
import math
import time
from typing import Any

import numpy as np

from headrace.control.constants import H100
from headrace.control.thermal import CONTROLLERS, DEFAULT
from headrace.report.provenance import plain
from loadtest.benches.report import finish, say
from loadtest.benches.thermal_scene import MATCHED, Hour, Scene, run

SEEDS, QUICK_SEEDS, QUICK_SECONDS = 20, 4, 3_000
LOOP_GPUS, LOOPS = 10_000, 20


def scenes(seeds: tuple[int, ...], seconds: int) -> dict[str, Scene]:
    return {
        "single": Scene(1, seeds, seconds=seconds),
        "server": Scene(8, seeds, seconds=seconds),
        "matched": Scene(1, seeds, MATCHED, seconds),
    }


def measure(seeds: tuple[int, ...], seconds: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for scene_name, scene in scenes(seeds, seconds).items():
        say(f"{scene_name}: {len(seeds)} plants of {scene.gpus}, {seconds} s")
        by_name: dict[str, Any] = {}
        for name, make in CONTROLLERS.items():
            hour = run(scene, make(H100, len(seeds) * scene.gpus))
            by_name[name] = hour.figures() | {"ci95": _intervals(hour)}
            say(_line(name, by_name[name]))
        for name, each in by_name.items():
            each["above_floor"] = each["queue_mean"] / by_name["none"]["queue_mean"] - 1.0 if name != "none" else 0.0
        found[scene_name] = by_name
    return found


def _intervals(hour: Hour) -> dict[str, float]:
    """Half widths, over plants."""
    return {
        name: float(1.96 * np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else float("nan")
        for name, values in hour.by_plant().items()
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


def _line(name: str, of: dict[str, Any]) -> str:
    return (
        f"  {name:8} over the limit {of['over_limit_share']:8.3%}  max {of['t_max_c']:5.1f} C  queue mean "
        f"{of['queue_mean']:7.3f} s  p99 {of['queue_p99']:7.2f} s  {of['joules_per_unit']:6.1f} J a unit"
    )


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="headrace bench thermal", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    seeds = tuple(range(1, (QUICK_SEEDS if args.quick else SEEDS) + 1))
    found = measure(seeds, QUICK_SECONDS if args.quick else 3_600)
    took_ms = loop_ms()
    say(f"a step of {DEFAULT} for {LOOP_GPUS:,} GPUs: {took_ms:.2f} ms")
    if args.json:
        more = {"server": found["server"], "matched": found["matched"], "loop_ms_10000_gpus": took_ms}
        finish("thermal", argv, list(seeds), plain({**found["single"], **more}))
    return 0
