"""Answers under a grammar through real processes without weights: whoever dies, they parse, and are the same."""

import asyncio
import json
import random
from typing import Any

import httpx
import pytest

from headrace.cli.supervisor import Mesh
from headrace.client import AsyncClient, Tool
from tests.e2e.meshes import until_heard
from tests.e2e.schemas import keeps_to, random_schema

LONG = {
    "type": "object",
    "properties": {"text": {"type": "string", "minLength": 60, "maxLength": 90}, "n": {"type": "integer"}},
    "required": ["text", "n"],
    "additionalProperties": False,
}
TOOLS = [{"type": "function", "function": {"name": "note", "parameters": LONG}}]


async def answer(mesh: Mesh, text: str, killed: str) -> list[int]:
    """Its tokens; whoever is to die does so in the middle."""
    tokens = list[int]()
    async with AsyncClient(mesh.grpc_addr) as client:
        async for delta in client.generate(text, json_schema=LONG, max_tokens=400):
            tokens += delta.tokens
            if killed and len(tokens) > 20:
                mesh.kill(killed)
                killed = ""
    return tokens


@pytest.mark.parametrize("killed", ["decode-0", "prefill-0"])
async def test_whoever_dies_the_answer_is_the_undisturbed_one(mesh: Mesh, killed: str) -> None:
    undisturbed = await answer(mesh, "a long note", "")
    assert await answer(mesh, "a long note", killed) == undisturbed
    await until_heard(mesh)
    said = json.loads(bytes(undisturbed[:-1]))
    assert 60 <= len(said["text"]) <= 90


async def test_random_schemas(mesh: Mesh) -> None:
    rng = random.Random(5)
    schemas = [random_schema(rng) for _ in range(16)]
    async with AsyncClient(mesh.grpc_addr) as client:
        streams = [client.generate(f"note {n}", json_schema=one, max_tokens=600) for n, one in enumerate(schemas)]
        texts = await asyncio.gather(*(stream.text() for stream in streams))
    assert [stream.end and stream.end.reason for stream in streams] == ["stop"] * 16
    assert all(keeps_to(json.loads(text), schema) for text, schema in zip(texts, schemas, strict=True)), texts


async def test_calls_and_several_answers_with_a_dead_gateway(mesh: Mesh) -> None:
    """Three forced calls; the gateway that took them dies, each goes on at the other one."""
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": "note it"}],
        "tools": TOOLS,
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "n": 3,
        "temperature": 1.0,
        "seed": 3,
        "max_tokens": 400,
    }
    async with httpx.AsyncClient(timeout=30.0) as client:
        whole = (await client.post(f"{mesh.http_url}/v1/chat/completions", json=body)).json()["choices"]
        url = f"{mesh.http_url}/v1/chat/completions"
        async with client.stream("POST", url, json={**body, "stream": True, "keep_on_disconnect": True}) as reply:
            ids = reply.headers["x-headrace-choices"].split(",")
            mesh.kill("gateway-0")
            with pytest.raises(httpx.HTTPError):
                await reply.aread()
        other = next(url for url in mesh.http_urls() if url != mesh.http_url)
        told = await asyncio.gather(*(client.get(f"{other}/v1/requests/{one}/events") for one in ids))
    arguments = [call["function"]["arguments"] for choice in whole for call in choice["message"]["tool_calls"]]
    assert [choice["finish_reason"] for choice in whole] == ["tool_calls"] * 3
    assert len(set(arguments)) == 3
    assert all(60 <= len(json.loads(one)["text"]) <= 90 for one in arguments)
    assert [_arguments(one.text) for one in told] == arguments
    await until_heard(mesh)


def _arguments(events: str) -> str:
    chunks = [json.loads(line[6:]) for line in events.split("\n\n") if line.startswith("data: {")]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return "".join(call["function"]["arguments"] for delta in deltas for call in delta.get("tool_calls", []))


async def test_over_grpc_they_are_those_of_http(mesh: Mesh) -> None:
    """Three forced calls by the SDK, the gateway killed under it: as undisturbed, and as over HTTP."""
    note = Tool("note", parameters=LONG)
    asked: dict[str, Any] = {"tools": [note], "tool_choice": note, "n": 3, "temperature": 1.0, "seed": 3}
    body = {
        "messages": [{"role": "user", "content": "note it"}],
        "tools": TOOLS,
        "tool_choice": {"type": "function", "function": {"name": "note"}},
        "n": 3,
        "temperature": 1.0,
        "seed": 3,
        "max_tokens": 400,
    }
    addresses = [mesh.addresses.grpc[name] for name in ("gateway-0", "gateway-1")]
    async with httpx.AsyncClient(timeout=30.0) as http, AsyncClient(addresses) as client:
        whole = (await http.post(f"{mesh.http_url}/v1/chat/completions", json=body)).json()["choices"]
        calls = []
        for killed in ("", "gateway-0"):
            answer, heard = client.generate("note it", max_tokens=400, **asked), 0
            async for _ in answer:
                heard += 1
                if killed and heard == 30:
                    mesh.kill(killed)
            assert [end and end.reason for end in answer.ends] == ["tool_calls"] * 3
            calls.append([(call.name, call.arguments) for calls in answer.all_tool_calls for call in calls])
    assert calls[0] == calls[1]
    told = [choice["message"]["tool_calls"][0]["function"] for choice in whole]
    assert calls[0] == [(function["name"], function["arguments"]) for function in told]
