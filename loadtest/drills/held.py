"""What a mesh still holds, counted from outside: when nobody asks anything of it, it is nothing.

Blocks, slots, handles, mapped files and kept requests of each worker, requests in the queue manager, records of the
journal, blobs, files in shared memory, and Redis keys other than leases and the snapshot of the queues.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import nats
import nats.aio.client
import psutil
import redis.asyncio

from headrace.cli import credentials
from headrace.client import operator
from headrace.mesh.blobs import names_under
from loadtest.drills.target import Target

# hr:{cell}:<kind>:<id>: these say who lives, what the queues look like and which limits hold, with no request in them.
STANDING_KINDS = ("lease", "worker", "snapshot", "queue", "governor", "rate")
WORKER_COUNTS = ("slots_used", "blocks_used", "handles", "mapped_files", "kept_requests", "offers")
OTHERS = ("gateway-", "qm-", "governor-")  # services that are no workers


async def held(target: Target) -> dict[str, int]:
    """Name -> count, for everything that is not zero."""
    counts: Counter[str] = Counter()
    for part in await asyncio.gather(_workers(target), _queue(target), _journal(target), _redis(target)):
        counts.update(part)
    counts.update(_files(target))
    return {name: count for name, count in counts.items() if count}


def _files(target: Target) -> dict[str, int]:
    blobs = len(names_under(target.data_dir / "data" / "blobs"))
    # Names with a dot are locks, and pages that wait for the next tensor: bounded, and nobody's.
    tensors = [path for path in Path(target.state.shm_dir).iterdir() if not path.name.startswith(".")]
    return {"blobs": blobs, "tensor files": sum(not path.is_socket() for path in tensors)}


async def standing(target: Target) -> dict[str, int]:
    """What is never nothing, and is to be as before: open streams, consumers and streams of NATS, file descriptors."""
    counts = dict[str, int]()
    async with _nats(target) as client:
        info = await client.jetstream().account_info()
        counts |= {"NATS streams": info.streams, "NATS consumers": info.consumers}
    async with httpx.AsyncClient(verify=target.tls or True, trust_env=False, timeout=10.0) as http:
        for number, url in enumerate(target.state.http_urls):
            reply = await http.get(f"{url}/metrics", headers=dict(target.door.metadata))
            said = [line for line in reply.text.splitlines() if line.startswith("headrace_open_streams ")]
            counts[f"gateway-{number} open streams"] = round(float(said[0].split()[1])) if said else -1
    for name, (pid, _) in target.state.processes.items():
        if psutil.pid_exists(pid):
            counts[f"{name} file descriptors"] = psutil.Process(pid).num_fds()
    return counts


async def _workers(target: Target) -> dict[str, int]:
    counts = {}
    for worker, address in target.state.services.items():
        if worker.startswith(OTHERS):
            continue
        try:
            state = await operator.worker_state(address, door=target.inner)
        except grpc.RpcError as error:
            return {f"{worker} does not answer ({error})": 1}
        counts.update({f"{worker} {name}": int(getattr(state, name)) for name in WORKER_COUNTS})
    return counts


async def _queue(target: Target) -> dict[str, int]:
    status = await operator.cell_status(target.state.services["qm-0"], door=target.inner)
    return {
        "queued": sum(entry.queued for entry in status.classes),
        "running": sum(entry.running for entry in status.classes),
    }


async def _journal(target: Target) -> dict[str, int]:
    async with _nats(target) as client:
        info = await client.jetstream().stream_info("REQUESTS")
        return {"journal records": info.state.messages}


@contextlib.asynccontextmanager
async def _nats(target: Target) -> AsyncIterator[nats.aio.client.Client]:
    """A connection of the queue manager's user: it may look at all of JetStream."""
    options: dict[str, Any] = {}
    if target.state.secrets_dir:
        file = Path(target.state.secrets_dir) / "nats-queue_manager.creds"
        user, _, password = file.read_text().strip().partition(":")
        options = {"user": user, "password": password, "inbox_prefix": f"_INBOX.{user}", "tls": target.tls}
    client = await nats.connect(target.state.nats_url, connect_timeout=10, max_reconnect_attempts=1, **options)
    try:
        yield client
    finally:
        await client.close()


async def _redis(target: Target) -> dict[str, int]:
    options: dict[str, Any] = {}
    if target.state.secrets_dir:
        password = (Path(target.state.secrets_dir) / "redis.password").read_text().strip()
        options = {"username": credentials.REDIS_USER, "password": password}
    client = redis.asyncio.Redis.from_url(target.state.redis_url, **options)
    try:
        kinds = [key.decode().split(":")[2] async for key in client.scan_iter("hr:*")]
    finally:
        await client.aclose()
    return dict(Counter(f"redis {kind}" for kind in kinds if kind not in STANDING_KINDS))
