"""`headrace load`: Locust, headless, against the running mesh; prints its table."""

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from headrace.cli import runstate
from headrace.cli.options import add_data_dir
from headrace.cli.view import Console

_ROOT = Path(__file__).resolve().parents[3]
# After the time is over Locust waits this long for what still runs.
_STOP_TIMEOUT_S = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_dir(parser)
    parser.add_argument("--scenario", default="mixed", help="a name of loadtest/scenarios, or a file")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--users", type=int, default=0, help="instead of the scenario's")
    parser.add_argument("--seed", type=int, default=1)


def run(args: argparse.Namespace) -> int:
    console = Console()
    if importlib.util.find_spec("locust") is None or not (_ROOT / "loadtest" / "locustfile.py").is_file():
        console.error("load needs a checkout of the repository and locust: make setup")
        return 1
    state = runstate.running(args.data_dir)
    if state is None:
        console.error("no mesh is running here; start one with: headrace up --detach")
        return 1
    sys.path.insert(0, str(_ROOT))
    from loadtest import scenario  # part of a checkout, not of the installed package

    try:
        chosen = scenario.load(args.scenario)
    except FileNotFoundError as error:
        console.error(str(error))
        return 1
    console.step(f"{chosen.name}: {chosen.about}; {args.users or chosen.users} users for {args.seconds} s")
    environment = {
        "PYTHONPATH": str(_ROOT),
        "HEADRACE_LOAD_GRPC": state.grpc_addresses[0],
        "HEADRACE_LOAD_SCENARIO": args.scenario,
        "HEADRACE_LOAD_SEED": str(args.seed),
    }
    command = [
        *(sys.executable, "-m", "locust", "-f", str(_ROOT / "loadtest" / "locustfile.py")),
        *("--headless", "--only-summary", "--host", state.http_urls[0], "--run-time", f"{args.seconds}s"),
        *("--users", str(args.users or chosen.users), "--spawn-rate", str(chosen.spawn_per_s)),
        *("--stop-timeout", str(_STOP_TIMEOUT_S), "--loglevel", "WARNING"),
    ]
    return subprocess.run(command, env={**os.environ, **environment}, check=False).returncode
