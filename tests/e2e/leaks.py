"""What a mesh still holds, counted from outside; after every test it is nothing.

Blocks, slots, handles, mapped files and kept requests of each worker, requests in the queue manager, records of the
journal, blobs, files in shared memory, and Redis keys other than leases and the snapshot of the queues.
"""

import asyncio
import time
from collections import Counter

import grpc
import nats
import redis.asyncio

from headrace.cli.supervisor import Mesh
from headrace.client import operator

# hr:{cell}:<kind>:<id>: these say who lives, what the queues look like and which limits hold, with no request in them.
_STANDING_KINDS = ("lease", "worker", "snapshot", "queue", "governor")
_WORKER_COUNTS = ("slots_used", "blocks_used", "handles", "mapped_files", "kept_requests", "offers")


async def held(mesh: Mesh) -> dict[str, int]:
    """Name -> count, for everything that is not zero."""
    counts: Counter[str] = Counter()
    for part in await asyncio.gather(_workers(mesh), _queue(mesh), _journal(mesh), _redis(mesh)):
        counts.update(part)
    counts["blobs"] = _files(mesh, "data/blobs")
    # Names with a dot are locks, and pages that wait for the next tensor: bounded, and nobody's.
    counts["tensor files"] = sum(1 for path in mesh.shm_dir.iterdir() if not path.name.startswith("."))
    return {name: count for name, count in counts.items() if count}


async def left_after(mesh: Mesh, within_s: float) -> dict[str, int]:
    """What is still held when the time is over; empty as soon as nothing is."""
    until = time.monotonic() + within_s
    while True:
        left = await held(mesh)
        if not left or time.monotonic() > until:
            return left
        await asyncio.sleep(0.05)


async def assert_free(mesh: Mesh, within_s: float) -> None:
    left = await left_after(mesh, within_s)
    assert not left, f"still held after {within_s:.2f} s: {left}"


async def _workers(mesh: Mesh) -> dict[str, int]:
    counts = {}
    for worker in mesh.workers:
        try:
            state = await operator.worker_state(mesh.addresses.grpc[worker])
        except grpc.RpcError as error:
            return {f"{worker} does not answer ({error})": 1}
        counts.update({f"{worker} {name}": int(getattr(state, name)) for name in _WORKER_COUNTS})
    return counts


async def _queue(mesh: Mesh) -> dict[str, int]:
    status = await operator.cell_status(mesh.addresses.grpc["qm-0"])
    return {
        "queued": sum(entry.queued for entry in status.classes),
        "running": sum(entry.running for entry in status.classes),
    }


async def _journal(mesh: Mesh) -> dict[str, int]:
    client = await nats.connect(mesh.addresses.nats_url, connect_timeout=2, max_reconnect_attempts=1)
    try:
        info = await client.jetstream().stream_info("REQUESTS")
        return {"journal records": info.state.messages}
    finally:
        await client.close()


async def _redis(mesh: Mesh) -> dict[str, int]:
    client = redis.asyncio.Redis.from_url(mesh.addresses.redis_url)
    try:
        kinds = [key.decode().split(":")[2] async for key in client.scan_iter("hr:*")]
    finally:
        await client.aclose()
    return dict(Counter(f"redis {kind}" for kind in kinds if kind not in _STANDING_KINDS))


def _files(mesh: Mesh, name: str) -> int:
    return sum(1 for path in (mesh.data_dir / name).rglob("*") if path.is_file())
