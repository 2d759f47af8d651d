"""The meshes that the end-to-end and chaos tests run on: small, quick, without weights."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from headrace.cli.plan import MeshConfig
from headrace.cli.supervisor import Mesh
from headrace.client import operator

STEADY = Path(__file__).parent / "steady.toml"


def small_mesh(data_dir: Path, **changes: Any) -> MeshConfig:
    """Profile engine, byte model, two gateways; one of every worker, with 8 slots, unless changed."""
    # Small KV caches are offered, too: every hand-over goes the longer way.
    environment = {"HEADRACE_SLOTS": "8", "HEADRACE_KV_PIPELINE": "on", **changes.pop("environment", {})}
    settings: dict[str, Any] = {
        "data_dir": data_dir,
        "engine": "profile",
        "profile": str(STEADY),
        "model": "profile-tiny",
        "gateways": 2,
        "cores": len(os.sched_getaffinity(0)),
        "start_timeout_s": 40.0,
        "environment": environment,
    }
    return MeshConfig(**(settings | changes))


def chaos_mesh(data_dir: Path) -> MeshConfig:
    """Two of every worker, so that what a dead or stopped one held goes on at the other."""
    return small_mesh(data_dir, encoders=2, prefill=2, decode=2)


async def until_heard(mesh: Mesh, within_s: float = 30.0) -> None:
    """Until the queue manager has heard every worker from now on, and the gateways that all can be served.

    `Mesh.until_servable` alone is content with a worker that has just been killed: it is listed until its lease ends,
    and on a slow machine that comes before the process that replaces it.
    """
    for service in mesh.ids:
        await mesh.until_ready(service, within_s)
    since_s, heard = time.time(), set[str]()
    async with asyncio.timeout(within_s):
        while not heard.issuperset(mesh.workers):
            await asyncio.sleep(0.05)
            cell = await operator.cell_status(mesh.addresses.grpc["qm-0"])
            heard = {worker.worker for worker in cell.workers if worker.last_seen_s > since_s}
    await mesh.until_servable()
