"""How fast the simulator is, and what it takes: one core, 128 GPUs, a day's mix of text and images.

The same traffic for ever longer: seconds a request must not grow with their number, and neither may memory beyond the
flat columns that a result is made of. Each length runs in a process of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

from headrace.sim.run import simulate
from headrace.workload.scenario import read
from loadtest.benches.report import finish, say

SCENARIO, RATE_RPS, SEED = "day", 12.0, 1
LENGTHS = (10_000, 100_000, 1_000_000)  # requests
QUICK = (3_000, 12_000)


def one(requests: int) -> dict[str, Any]:
    """In this process."""
    scenario = read(SCENARIO).changed(duration_s=requests / RATE_RPS)
    began_s = time.process_time()
    result = simulate(scenario, "fcfs", SEED)
    cpu_s = time.process_time() - began_s
    return {
        "requests": len(result.requests),
        "finished": int(result.requests.finished.sum()),
        "wall_s": round(result.wall_s, 1),
        "cpu_s": round(cpu_s, 1),
        "requests_per_wall_s": round(len(result.requests) / result.wall_s),
        "requests_per_cpu_s": round(len(result.requests) / cpu_s),
        "events_per_request": round(result.counters["events"] / len(result.requests), 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def apart(requests: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "loadtest.benches.simulator", "--one", str(requests)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="headrace bench simulator", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
    parser.add_argument("--quick", action="store_true", help="two short runs, under 60 s")
    parser.add_argument("--one", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(one(args.one)), flush=True)
        return
    rows = []
    for requests in QUICK if args.quick else LENGTHS:
        rows.append(apart(requests))
        say("  ".join(f"{name} {value:,}" for name, value in rows[-1].items()))
    if args.json:
        finish("simulator", argv, [SEED], {"gpus": 128, "runs": rows})


if __name__ == "__main__":
    main()
