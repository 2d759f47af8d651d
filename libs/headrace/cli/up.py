"""`headrace up`: a mesh in the foreground, or with --detach in the background."""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from headrace.cli import runstate
from headrace.cli.options import add_mesh, mesh_config, mesh_words
from headrace.cli.runstate import RunState
from headrace.cli.supervisor import Mesh, MeshFailed
from headrace.cli.view import Console
from headrace.mesh.errors import BadSetup

# The background process gives up by itself before this.
_DETACHED_START_S = 180.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_mesh(parser)
    parser.add_argument("--quiet", action="store_true", help=argparse.SUPPRESS)  # the parent shows the addresses
    parser.add_argument("--detach", action="store_true", help="return when the mesh is ready; stop it with: down")


def run(args: argparse.Namespace) -> int:
    args.data_dir = args.data_dir.resolve()
    return _detach(args) if args.detach else asyncio.run(_foreground(args))


async def _foreground(args: argparse.Namespace) -> int:
    console = Console()
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    mesh = Mesh(mesh_config(args, tethered=False), console.step)
    try:
        starting = asyncio.create_task(mesh.start())
        await asyncio.wait({starting, waiting := asyncio.create_task(stopping.wait())}, return_when="FIRST_COMPLETED")
        if starting.done():
            starting.result()
            if not args.quiet:
                console.mesh_ready(runstate.read(mesh.data_dir))
            await waiting
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
    except (MeshFailed, BadSetup, OSError) as error:
        console.error(str(error))
        return 1
    finally:
        console.step("stopping")
        await mesh.stop()
    console.step("stopped")
    return 0


def _detach(args: argparse.Namespace) -> int:
    console = Console()
    running = runstate.read(args.data_dir)
    if running is not None and running.alive() and running.state == "ready":
        console.step("already running")
        console.mesh_ready(running)
        return 0
    log = args.data_dir / "logs" / "supervisor.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        command = [sys.executable, "-m", "headrace.cli.main", "up", "--quiet", *mesh_words(args)]
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ,
        )
    state = _follow(child, args.data_dir, log, console)
    if state is None:
        return 1
    console.mesh_ready(state)
    return 0


def _follow(child: "subprocess.Popen[bytes]", data_dir: Path, log: Path, console: Console) -> RunState | None:
    """Shows what the background process says until its mesh is ready; None if it failed."""
    shown, until = 0, time.monotonic() + _DETACHED_START_S
    while time.monotonic() < until:
        lines = log.read_text(errors="replace").splitlines()
        for line in lines[shown:]:
            console.plain(line)
        shown = len(lines)
        state = runstate.read(data_dir)
        if state is not None and state.supervisor_pid == child.pid and state.state == "ready":
            return state
        if child.poll() is not None:
            return None
        time.sleep(0.1)
    console.error(f"the mesh was not ready after {_DETACHED_START_S:.0f} s; see {log}")
    child.terminate()
    return None
