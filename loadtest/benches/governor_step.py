"""What a step of the governor costs: milliseconds for 10,000 GPUs in rows of 22 servers, under a limit that binds.

`python -m loadtest.benches.governor_step --json`. The loads change every step, so that shares are worked out anew.
"""

import argparse
import sys
import time
from dataclasses import replace

import numpy as np

from headrace.core.power.fleet import STAGES, Device, Fleet, Kind, Member, Readings, Row
from headrace.core.power.governor import Governor
from headrace.report.provenance import plain
from loadtest.benches.report import finish, percentile, say

GPUS, OF_WORKER, ROW_WORKERS = 10_000, 8, 22
STEPS, QUICK_STEPS = 200, 30
SHARE = 0.7  # of what a row's GPUs would draw at most
MOST_W = 700.0
KIND = Kind(121.7, 700.0, 700.0, 380.0, 3.56, 0.35, 0.75, air_m3s=0.065)


def fleet(gpus: int = GPUS) -> Fleet:
    workers = gpus // OF_WORKER
    rows = -(-workers // ROW_WORKERS)
    members = tuple(
        Member(f"w-{at}", at // ROW_WORKERS, (STAGES[at % len(STAGES)],), at % 5 == 0) for at in range(workers)
    )
    devices = tuple(
        Device(f"w-{at // OF_WORKER}/{at % OF_WORKER}", at // OF_WORKER, KIND, 200.0, MOST_W)
        for at in range(workers * OF_WORKER)
    )
    budget_w = SHARE * MOST_W * OF_WORKER * ROW_WORKERS
    return Fleet(
        tuple(Row(f"row-{at}", f"aisle-{at // 2}", budget_w, budget_w / 700.0 * 0.065) for at in range(rows)),
        members,
        devices,
    )


def readings(governed: Fleet, rng: np.random.Generator) -> Readings:
    n = len(governed.devices)
    busy = rng.random(n)
    full = 121.7 + busy * 500.0
    return replace(
        Readings.unknown(n),
        power_w=full * rng.uniform(0.6, 1.0, n),
        temp_c=rng.integers(40, 80, n).astype(np.float64),
        age_s=np.full(n, 0.5),
        full_w=full,
        busy=busy,
        speed=np.full(n, 0.9),
        shares=governed.serves * busy,
    )


def measure(steps: int, gpus: int = GPUS) -> tuple[list[float], list[float]]:
    """Milliseconds of each step but the first, which finds all devices new: on the wall, and of this process."""
    governed, governor, rng = fleet(gpus), Governor(), np.random.default_rng(1)
    took, worked = [], []
    for at in range(steps + 1):
        seen = readings(governed, rng)
        began, began_cpu = time.perf_counter(), time.process_time()
        governor.step(governed, seen, float(at))
        took.append(1e3 * (time.perf_counter() - began))
        worked.append(1e3 * (time.process_time() - began_cpu))
    return took[1:], worked[1:]


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="headrace bench governor_step", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    took, worked = measure(QUICK_STEPS if args.quick else STEPS)
    half, most = percentile(took, 0.5), percentile(took, 0.99)
    cpu_half, cpu_most = percentile(worked, 0.5), percentile(worked, 0.99)
    say(f"a step for {GPUS:,} GPUs: {half:.1f} ms, 99 % within {most:.1f} ms; CPU {cpu_half:.1f}, {cpu_most:.1f}")
    if args.json:
        wall = {"gpus": GPUS, "step_ms_p50": half, "step_ms_p99": most}
        cpu = {"step_cpu_ms_p50": cpu_half, "step_cpu_ms_p99": cpu_most}
        finish("governor_step", argv, [1], plain(wall | cpu))
    return 0


if __name__ == "__main__":
    sys.exit(main())
