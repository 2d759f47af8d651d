"""What a mesh still holds, counted from outside; after every test it is nothing."""

import asyncio
import time

from headrace.cli import runstate
from headrace.cli.environment import secrets_dir
from headrace.cli.supervisor import Mesh
from headrace.client import Door
from loadtest.drills.held import held
from loadtest.drills.target import Target


def target_of(mesh: Mesh) -> Target:
    """With the workers that there are now."""
    addresses = mesh.addresses
    state = runstate.for_this_process(
        "ready",
        nats_url=addresses.nats_url,
        redis_url=addresses.redis_url,
        services={name: addresses.grpc[name] for name in ("qm-0", *mesh.workers)},
        shm_dir=str(mesh.shm_dir),
        secrets_dir=str(secrets_dir(mesh.data_dir)) if mesh.config.secure else "",
    )
    return Target(state, mesh.door or Door(), mesh.data_dir)


async def left_after(mesh: Mesh, within_s: float) -> dict[str, int]:
    """What is still held when the time is over; empty as soon as nothing is."""
    until = time.monotonic() + within_s
    while True:
        left = await held(target_of(mesh))
        if not left or time.monotonic() > until:
            return left
        await asyncio.sleep(0.05)


async def assert_free(mesh: Mesh, within_s: float) -> None:
    left = await left_after(mesh, within_s)
    assert not left, f"still held after {within_s:.2f} s: {left}"
