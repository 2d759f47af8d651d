"""A batch through real processes while they are killed: every line ends exactly once, in one of the two files."""

import asyncio
import json
import signal
from typing import Any

import httpx
import pytest
import redis.asyncio

from headrace.cli.supervisor import Mesh
from tests.e2e.meshes import until_heard
from tests.gateway.batching import begin, content, ended, jsonl, line

pytestmark = pytest.mark.timeout(120)
LINES = 60


async def progress(client: httpx.AsyncClient, batch_id: str, completed: int) -> None:
    async with asyncio.timeout(60):
        while True:
            counts = (await client.get(f"/v1/batches/{batch_id}")).json()["request_counts"]
            if counts["completed"] >= completed:
                return
            await asyncio.sleep(0.05)


async def flush_redis(mesh: Mesh) -> None:
    client = redis.asyncio.Redis.from_url(mesh.addresses.redis_url)
    await client.flushall()
    await client.aclose()


def holder_of(mesh: Mesh, batch_id: str) -> str:
    """The gateway that took it last, as the logs have it."""
    taken = [
        (float(event["time_s"]), gateway)
        for gateway in ("gateway-0", "gateway-1")
        for event in map(_parsed, mesh.logs(gateway).splitlines())
        if event.get("event") == "batch_taken" and f"batch_{event.get('batch')}" == batch_id
    ]
    return max(taken)[1]


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def whole(outputs: list[dict[str, Any]], errors: list[dict[str, Any]], lines: int) -> None:
    assert errors == []
    assert sorted(one["custom_id"] for one in outputs) == sorted(f"line-{n}" for n in range(lines))
    for one in outputs:
        assert one["response"]["body"]["usage"]["completion_tokens"] == 20, one


async def test_every_line_ends_once_whatever_dies(mesh: Mesh) -> None:
    """The holder is killed, then the queue manager; Redis is emptied, NATS killed; a worker dies too."""
    data = jsonl([line(number, max_tokens=20, ignore_eos=True) for number in range(LINES)])
    async with httpx.AsyncClient(base_url=mesh.http_urls()[0], timeout=10.0) as first:
        batch_id = (await begin(first, data))["id"]
        await progress(first, batch_id, 4)
        gateway = holder_of(mesh, batch_id)
        survivor = mesh.http_urls()[1 - int(gateway[-1])]
        mesh.kill(gateway, signal.SIGKILL)
        async with httpx.AsyncClient(base_url=survivor, timeout=10.0) as client:
            mesh.kill("qm-0", signal.SIGKILL)
            await asyncio.sleep(0.5)
            await flush_redis(mesh)
            mesh.kill("decode-0", signal.SIGKILL)
            await progress(client, batch_id, 12)
            await asyncio.to_thread(mesh.restart_nats, kill=True)
            await until_heard(mesh)
            batch = await ended(client, batch_id, 80.0)
            assert batch["status"] == "completed", batch
            assert batch["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
            outputs = await content(client, batch["output_file_id"])
            errors = await content(client, batch["error_file_id"])
    whole(outputs, errors, LINES)
    undisturbed = {one["custom_id"]: one["response"]["body"]["choices"] for one in outputs}
    async with httpx.AsyncClient(base_url=mesh.http_urls()[0], timeout=30.0) as client:
        for number in (0, LINES // 2, LINES - 1):
            asked = await client.post("/v1/chat/completions", json=json.loads(data.splitlines()[number])["body"])
            assert asked.json()["choices"] == undisturbed[f"line-{number}"]
