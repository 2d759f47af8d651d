"""Log-probabilities at a real gateway: OpenAI's shape streamed and whole, gRPC, attach, losses, stop strings."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionTokenLogprob

from headrace.client import AsyncClient
from headrace.core.types import End, TokenLogprobs
from tests.gateway.conftest import Edge, Edges, until
from tests.gateway.standin import Script, StandIn

pytestmark = pytest.mark.timeout(30)
CHAT = "/v1/chat/completions"
EOS = 257  # of profile-tiny


def told(token: int) -> TokenLogprobs:
    return TokenLogprobs(-token / 64, ((token, -token / 64), (EOS, -token / 8)))


def script(text: bytes = b"hello", **more: Any) -> Script:
    return Script(text, logprobs={index: told(token) for index, token in enumerate(text)}, **more)


def ask(**more: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": "hi"}], "logprobs": True, "top_logprobs": 2}
    return body | more


def expected(text: bytes, special: str) -> list[dict[str, Any]]:
    return [
        {
            "token": chr(token),
            "logprob": -token / 64,
            "bytes": [token],
            "top_logprobs": [
                {"token": chr(token), "logprob": -token / 64, "bytes": [token]},
                {"token": special, "logprob": -token / 8, "bytes": None},
            ],
        }
        for token in text
    ]


@dataclass(frozen=True)
class Read:
    text: str
    content: list[dict[str, Any]]


def streamed(body: str) -> Read:
    text, content = "", list[dict[str, Any]]()
    for choice in choices(body):
        text += choice["delta"].get("content", "")
        content += (choice["logprobs"] or {"content": []})["content"]
    return Read(text, content)


def choices(body: str) -> Iterator[dict[str, Any]]:
    for line in body.split("\n\n"):
        if line.startswith("data: {"):
            yield from json.loads(line.removeprefix("data: "))["choices"]


async def whole(edge: Edge, **more: Any) -> Read:
    (choice,) = (await edge.http.post(CHAT, json=ask(**more))).json()["choices"]
    return Read(choice["message"]["content"], choice["logprobs"]["content"])


@pytest.mark.parametrize("stop", [[], ["lo"], ["zz", "l"], ["xx"]])
async def test_streamed_and_whole_tell_the_same(edge: Edge, cell: StandIn, stop: list[str]) -> None:
    cell.script = lambda request: script()
    special = edge.front.models.family("").tokenizer.id_to_token(EOS)
    assert special
    events = streamed((await edge.http.post(CHAT, json=ask(stream=True, stop=stop))).text)
    assert events == await whole(edge, stop=stop)
    assert events.content == expected(events.text.encode(), special)
    assert events.text == {"lo": "hel", "l": "he"}.get((stop or [""])[-1], "hello")
    assert {(request.sampling.logprobs, request.sampling.max_tokens > 0) for request in cell.requests} == {(2, True)}


async def test_each_event_tells_of_its_own_token(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda request: script()
    all_choices = list(choices((await edge.http.post(CHAT, json=ask(stream=True))).text))
    assert [[one["token"] for one in c["logprobs"]["content"]] for c in all_choices[:-1]] == [[t] for t in "hello"]
    assert all_choices[0]["delta"] == {"role": "assistant", "content": "h"}
    assert (all_choices[-1]["logprobs"], all_choices[-1]["finish_reason"]) == (None, "stop")


async def test_nothing_is_told_that_was_not_asked_for(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda request: script()
    plain: dict[str, Any] = {"logprobs": None, "top_logprobs": None}
    reply = await edge.http.post(CHAT, json=ask(stream=True, **plain))
    assert [choice["logprobs"] for choice in choices(reply.text)] == [None] * 6
    assert (await edge.http.post(CHAT, json=ask(**plain))).json()["choices"][0]["logprobs"] is None
    assert {request.sampling.logprobs for request in cell.requests} == {None}


async def test_the_openai_client_reads_them(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda request: script()
    body: Any = ask(model="profile-tiny")
    async with AsyncOpenAI(api_key="k", base_url=f"{edge.url}/v1") as client:
        answer = await client.chat.completions.create(**body)
        heard: list[ChatCompletionTokenLogprob] = []
        async for chunk in await client.chat.completions.create(**body, stream=True):
            if chunk.choices and chunk.choices[0].logprobs:
                heard += chunk.choices[0].logprobs.content or []
    assert answer.choices[0].logprobs is not None
    content = answer.choices[0].logprobs.content
    assert content == heard
    assert [(one.token, one.logprob, one.bytes) for one in content] == [(chr(b), -b / 64, [b]) for b in b"hello"]
    assert [likely.bytes for likely in content[0].top_logprobs] == [[ord("h")], None]


async def test_the_sdk_tells_of_every_token(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda request: script(b"hello", end=End("length"))
    async with AsyncClient(edge.grpc) as client:
        deltas = [delta async for delta in client.generate("hi", logprobs=2, stop=["lo"])]
        plain = [delta async for delta in client.generate("hi")]
    heard = [one for delta in deltas for one in delta.logprobs]
    assert [one.index for one in heard] == list(range(5))
    assert [(one.drawn.token, one.drawn.text, one.drawn.logprob) for one in heard] == [
        (byte, bytes([byte]), -byte / 64) for byte in b"hello"
    ]
    assert [(likely.token, likely.text) for likely in heard[0].top] == [(ord("h"), b"h"), (EOS, b"")]
    assert "".join(delta.text for delta in deltas) == "hel"
    assert not any(delta.logprobs for delta in plain)


async def test_another_gateway_tells_the_same(edges: Edges, cell: StandIn) -> None:
    """Attached to while it runs, and again from RESULTS when it is over."""
    cell.script = lambda request: script(wait_s=0.05)
    first, second = await edges.start("gw-a"), await edges.start("gw-b")
    key = {"idempotency-key": "same"}
    asked = asyncio.create_task(first.http.post(CHAT, json=ask(keep_on_disconnect=True), headers=key))
    await until(lambda: cell.running and next(iter(cell.running.values())).sent >= 2)
    request_id = cell.requests[0].id
    running = streamed((await second.http.get(f"/v1/requests/{request_id}/events")).text)
    asked.cancel()
    await until(lambda: not cell.running)
    again = await edges.start("gw-c")
    ended = streamed((await again.http.get(f"/v1/requests/{request_id}/events")).text)
    part = streamed((await again.http.get(f"/v1/requests/{request_id}/events?next_index=3")).text)
    special = again.front.models.family("").tokenizer.id_to_token(EOS)
    assert special
    assert running == ended == Read("hello", expected(b"hello", special))
    assert part == Read("lo", expected(b"lo", special))


async def test_messages_that_were_lost_are_told_again(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda request: script(lose=frozenset({1, 3}))
    assert [one["token"] for one in (await whole(edge)).content] == list("hello")


async def test_what_nobody_knows_any_more_is_null_and_counted(edge: Edge, cell: StandIn) -> None:
    known = {index: told(token) for index, token in enumerate(b"hello") if index != 2}
    cell.script = lambda request: Script(b"hello", logprobs=known)
    content = (await whole(edge)).content
    assert [one["logprob"] for one in content] == [None if n == 2 else -b / 64 for n, b in enumerate(b"hello")]
    assert content[2] == {"token": "l", "logprob": None, "bytes": [108], "top_logprobs": []}
    assert "headrace_logprobs_lost_total 1.0" in (await edge.http.get("/metrics")).text


async def test_recovery_is_told_what_the_client_has_seen(edge: Edge, cell: StandIn) -> None:
    from headrace.mesh import subjects
    from headrace.v1 import common_pb2, queue_pb2
    from headrace.wire import convert

    cell.script = lambda request: script(wait_s=0.05)
    asked = asyncio.create_task(edge.http.post(CHAT, json=ask()))
    await until(lambda: cell.running and next(iter(cell.running.values())).sent >= 3)
    (request_id,) = cell.running
    fence = [common_pb2.Attempt(request_id=request_id, attempt=2)]
    query = queue_pb2.HeldQuery(epoch=1, fence=fence).SerializeToString()
    reply = queue_pb2.HeldReply.FromString(await cell.bus.request(subjects.held("gw-a"), query, 1.0))
    (held,) = reply.held
    assert len(held.tokens) >= 2
    assert convert.logprobs_from_proto(held.logprobs) == tuple(enumerate(map(told, held.tokens)))
    asked.cancel()


async def test_the_document_describes_them(edge: Edge) -> None:
    schemas = (await edge.http.get("/openapi.json")).json()["components"]["schemas"]
    assert set(schemas["TokenLogprob"]["properties"]) == {"token", "logprob", "bytes", "top_logprobs"}
    assert {"logprobs", "top_logprobs"} <= set(schemas["ChatRequest"]["properties"])
