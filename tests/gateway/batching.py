"""Gateways with files and batches, for tests: the desk on an HTTP server of its own, beside the edge's."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from headrace.mesh.config import Settings
from services.gateway.batch_desk import Desk
from services.gateway.batch_errand import ENDPOINTS, Endpoint
from services.gateway.routes import bind, http_server
from tests.gateway.conftest import Edge

CHAT = "/v1/chat/completions"


@dataclass
class Office:
    edge: Edge
    desk: Desk
    http: httpx.AsyncClient
    url: str


@asynccontextmanager
async def office(
    edge: Edge, directory: Path, endpoints: Mapping[str, Endpoint] = ENDPOINTS, **settings: Any
) -> AsyncIterator[Office]:
    desk = Desk(edge.front, replace(Settings(data_dir=directory), **settings), endpoints)
    await desk.start()
    server, sock = http_server(edge.front, None, desk.routes()), bind("127.0.0.1:0")
    serving = asyncio.ensure_future(server.serve(sockets=[sock]))
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=20.0) as client:
            yield Office(edge, desk, client, url)
    finally:
        await desk.stop()
        server.should_exit = True
        await serving


def line(number: int, text: str = "hi", **body: Any) -> dict[str, Any]:
    asked = {"model": "profile-tiny", "messages": [{"role": "user", "content": f"{text} {number}"}], **body}
    return {"custom_id": f"line-{number}", "method": "POST", "url": CHAT, "body": asked}


def jsonl(lines: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in lines)


async def upload(client: httpx.AsyncClient, data: bytes, name: str = "in.jsonl", **headers: str) -> dict[str, Any]:
    reply = await client.post(
        "/v1/files", data={"purpose": "batch"}, files={"file": (name, data)}, headers=headers or None
    )
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


async def begin(client: httpx.AsyncClient, data: bytes, **more: Any) -> dict[str, Any]:
    file = await upload(client, data)
    body = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h", **more}
    reply = await client.post("/v1/batches", json=body)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


async def ended(client: httpx.AsyncClient, batch_id: str, within_s: float = 20.0) -> dict[str, Any]:
    async with asyncio.timeout(within_s):
        while True:
            batch: dict[str, Any] = (await client.get(f"/v1/batches/{batch_id}")).json()
            if batch["status"] in ("completed", "failed", "expired", "cancelled"):
                return batch
            await asyncio.sleep(0.05)


async def content(client: httpx.AsyncClient, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    reply = await client.get(f"/v1/files/{file_id}/content")
    assert reply.status_code == 200, reply.text
    return [json.loads(text) for text in reply.text.splitlines()]
