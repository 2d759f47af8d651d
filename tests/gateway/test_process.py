"""The gateway as a process: starts from its environment, drains on SIGTERM, is killed without harm to its requests."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.client import AsyncClient
from tests.gateway.conftest import Edges, until
from tests.gateway.standin import Script, StandIn

pytestmark = pytest.mark.timeout(90)
CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "hi"}], "stream": True}


@asynccontextmanager
async def gateway(nats_url: str, folder: Path, **env: str) -> AsyncIterator[tuple[Process, dict[str, Any]]]:
    settings = {
        "HEADRACE_NATS_URL": nats_url,
        "HEADRACE_MODEL": "profile-tiny",
        "HEADRACE_DATA_DIR": str(folder),
        "HEADRACE_HTTP_ADDR": "127.0.0.1:0",
        **env,
    }
    command = (sys.executable, "-m", "services.gateway", "--id", "gw-p")
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, env={**os.environ, **settings})
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            yield process, json.loads(await process.stdout.readline() or b"{}")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def serving(ready: dict[str, Any], client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(10):
        while (await client.get(f"http://{ready['http']}/health")).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_sigterm_drains(edges: Edges, cell: StandIn, tmp_path: Path) -> None:
    cell.script = lambda _: Script(tuple(b"x" * 60), wait_s=0.03)
    async with gateway(edges.url, tmp_path) as (process, ready), httpx.AsyncClient(timeout=20) as client:
        await serving(ready, client)
        async with AsyncClient(ready["grpc"]) as sdk:
            text = asyncio.ensure_future(sdk.generate("hi").text())
            stream = asyncio.ensure_future(client.post(f"http://{ready['http']}{CHAT}", json=BODY))
            await until(lambda: len(cell.running) == 2)
            process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.2)
            refused = await client.post(f"http://{ready['http']}{CHAT}", json=BODY)
            async with grpc.aio.insecure_channel(ready["grpc"]) as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                health = await stub.Check(health_pb2.HealthCheckRequest())
            assert (refused.status_code, health.status) == (503, health_pb2.HealthCheckResponse.NOT_SERVING)
            assert await text == "x" * 60
            assert (await stream).text.endswith("data: [DONE]\n\n")
        async with asyncio.timeout(10):
            assert await process.wait() == 0
    assert not any(heard.startswith("cancel") for heard in cell.heard)


@pytest.mark.chaos
async def test_a_killed_gateway_leaves_its_requests_to_be_attached_to(
    edges: Edges, cell: StandIn, tmp_path: Path
) -> None:
    cell.script = lambda _: Script(tuple(b"x" * 60), wait_s=0.03)
    other = await edges.start("gw-b")
    async with gateway(edges.url, tmp_path, HEADRACE_FAULT="gateway.first_token:1:kill") as (process, ready):
        async with AsyncClient([ready["grpc"], other.grpc]) as sdk, httpx.AsyncClient() as client:
            await serving(ready, client)  # before that the SDK would have gone to the other gateway by itself
            answer = sdk.generate("hi")
            tokens = [token async for delta in answer for token in delta.tokens]
        assert await process.wait() == -signal.SIGKILL
    assert bytes(tokens) == b"x" * 60
    assert len(cell.requests) == 1


async def test_a_bad_setting_is_named(tmp_path: Path, nats_url: str) -> None:
    async with gateway(nats_url, tmp_path, HEADRACE_API_KEYS_FILE="/nowhere/keys") as (process, ready):
        assert (await process.wait(), ready) == (78, {})
