"""`headrace down`: stops the mesh of a data directory, also one whose supervisor has died."""

import argparse
import os
import shutil
import signal
import time
from pathlib import Path

from headrace.cli import runstate
from headrace.cli.options import add_data_dir
from headrace.cli.supervisor import STOP_TIMEOUT_S
from headrace.cli.view import Console
from headrace.mesh.power_limits import FOLDER, restore_left
from headrace.mesh.sensors import Nvml

# Gateways, workers, the rest, then the two servers: each bounded by the supervisor.
_WAIT_S = 3 * STOP_TIMEOUT_S + 15.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_dir(parser)


def run(args: argparse.Namespace) -> int:
    console = Console()
    state = runstate.read(args.data_dir)
    if state is None:
        _restore_limits(args.data_dir, console)
        console.step("no mesh is running here")
        return 0
    if state.alive():
        os.kill(state.supervisor_pid, signal.SIGTERM)
        until = time.monotonic() + _WAIT_S
        while state.alive() and time.monotonic() < until:
            time.sleep(0.05)
        if state.alive():
            console.error(
                f"the supervisor (pid {state.supervisor_pid}) did not stop within {_WAIT_S:.0f} s; killing it"
            )
            os.kill(state.supervisor_pid, signal.SIGKILL)
    orphans = runstate.stop_orphans(state)
    if orphans:
        console.step(f"stopped what a dead supervisor had left: {', '.join(orphans)}")
    if state.shm_dir:
        shutil.rmtree(state.shm_dir, ignore_errors=True)
    _restore_limits(args.data_dir, console)
    runstate.forget(args.data_dir)
    console.step("stopped")
    return 0


def _restore_limits(data_dir: Path, console: Console) -> None:
    """Of GPUs whose worker was killed while it held a cap."""
    blobs_dir = data_dir / "data"  # HEADRACE_DATA_DIR of the services
    if not list((blobs_dir / FOLDER).glob("*.json")):
        return
    if restored := restore_left(Nvml.open().library, blobs_dir):
        console.step(f"gave back the power limits of {', '.join(restored)}")
