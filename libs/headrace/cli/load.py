"""`headrace load`: a scenario's load on the running mesh. Users ask through Locust, an open loop is replayed, a drill
is run and judged.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from headrace.cli import runstate
from headrace.cli.options import add_data_dir
from headrace.cli.runstate import RunState
from headrace.cli.view import Console
from headrace.report.provenance import provenance
from headrace.workload.scenario import Scenario, ScenarioError, Users, read

_ROOT = Path(__file__).resolve().parents[3]
# After the time is over Locust waits this long for what still runs.
_STOP_TIMEOUT_S = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_dir(parser)
    parser.add_argument("name", nargs="?", metavar="SCENARIO", help="a name of loadtest/scenarios, or a file")
    parser.add_argument("--scenario", default="mixed", help="the same, as an option")
    parser.add_argument("--seconds", type=_positive, default=0.0, help="of asking, instead of the scenario's")
    parser.add_argument("--scale", type=_positive, default=1.0, help="times the scenario's rate or users")
    parser.add_argument("--users", type=int, default=0, help="instead of the scenario's; where it has users")
    parser.add_argument("--seed", type=int, default=None, help="instead of the scenario's")
    parser.add_argument("--saturation", type=_positive, default=0.0, metavar="RPS", help="of a drill: not to be found")
    parser.add_argument("--levels", type=_levels, default=(), metavar="A,B", help="of an overload: times saturation")
    parser.add_argument(
        "--retries", type=int, default=0, metavar="N", help="of a drill: tries of a refused request more"
    )
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object, the last line")
    parser.add_argument("--out", type=Path, default=None, help="a file for one JSON line a request; of an open loop")


def run(args: argparse.Namespace) -> int:
    console = Console()
    if not (_ROOT / "loadtest" / "locustfile.py").is_file():
        console.error("load needs a checkout of the repository: loadtest/ was not found")
        return 1
    state = runstate.running(args.data_dir)
    if state is None:
        console.error(runstate.NO_MESH)
        return 1
    try:
        scenario = read(args.name or args.scenario).changed(duration_s=args.seconds, scale=args.scale, seed=args.seed)
    except ScenarioError as error:
        console.error(str(error))
        return 1
    sys.path.insert(0, str(_ROOT))
    # Parts of a checkout, not of the installed package.
    if scenario.drill is not None:
        from loadtest.drills import run as drills

        saturation_rps = args.saturation or scenario.drill.saturation_rps
        drill = replace(
            scenario.drill,
            saturation_rps=saturation_rps,
            levels=args.levels or scenario.drill.levels,
            retries=args.retries or scenario.drill.retries,
        )
        return drills.run(replace(scenario, drill=drill), state, args.data_dir, as_json=args.json)
    if not isinstance(scenario.workload, Users):
        from loadtest import replay_report

        return replay_report.run(scenario, state.grpc_addresses, runstate.door(state), as_json=args.json, out=args.out)
    return _locust(scenario, scenario.workload, state, console, args)


def _locust(scenario: Scenario, asked: Users, state: RunState, console: Console, args: argparse.Namespace) -> int:
    if importlib.util.find_spec("locust") is None:
        console.error("a scenario with users needs locust: make setup")
        return 1
    runstate.enter(state)  # the users of Locust find their papers in the environment
    users = args.users or asked.users
    if not args.json:
        console.step(f"{scenario.name}: {scenario.about}; {users} users for {scenario.duration_s:g} s")
    environment = {
        "PYTHONPATH": str(_ROOT),
        "HEADRACE_LOAD_GRPC": state.grpc_addresses[0],
        "HEADRACE_LOAD_SCENARIO": args.name or args.scenario,
        "HEADRACE_LOAD_SEED": str(scenario.seed),
    }
    command = [
        *(sys.executable, "-m", "locust", "-f", str(_ROOT / "loadtest" / "locustfile.py")),
        *("--headless", "--only-summary", "--host", state.http_urls[0], "--run-time", f"{scenario.duration_s:g}s"),
        *("--users", str(users), "--spawn-rate", f"{asked.spawn_per_s:g}"),
        *("--stop-timeout", str(_STOP_TIMEOUT_S), "--loglevel", "WARNING", *(["--json"] if args.json else [])),
    ]
    done = subprocess.run(
        command, env={**os.environ, **environment}, check=False, stdout=subprocess.PIPE if args.json else None
    )
    if args.json and done.stdout:
        head = provenance(["headrace", *sys.argv[1:]], [scenario.seed]).head()
        print(json.dumps(head | {"scenario": scenario.name, "locust": json.loads(done.stdout)}), flush=True)
    return done.returncode


def _levels(text: str) -> tuple[float, ...]:
    return tuple(_positive(part) for part in text.split(","))


def _positive(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value
