"""Rate limits, quotas, scopes and revocation at a real gateway, over HTTP and gRPC, with a real Redis."""

import asyncio
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from headrace.client import RateLimited, errors
from headrace.core.access import NO_LIMITS, Key, Limits, Scope
from headrace.core.rates import Verdict
from headrace.mesh import keyfile, keyring
from headrace.mesh.rates import Rates
from headrace.mesh.servers import RedisServer
from headrace.mesh.store import Store
from headrace.v1 import common_pb2, gateway_pb2, gateway_pb2_grpc
from services.gateway.auth import Keys
from services.gateway.limits import Limiter, headers
from tests.gateway.conftest import Edge, Edges, Options, until
from tests.gateway.standin import Script

CHAT = "/v1/chat/completions"


@dataclass
class Door:
    """One gateway with one key's limits."""

    edge: Edge
    limiter: Limiter
    shown: str
    key: Key
    path: Path

    def ask(self, max_tokens: int = 10, **body: Any) -> Any:
        said = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": max_tokens, **body}
        return self.edge.http.post(CHAT, json=said, headers={"authorization": f"Bearer {self.shown}"})


class Doors:
    def __init__(self, edges: Edges, folder: Path, url: str) -> None:
        self.edges, self.folder, self.url = edges, folder, url

    async def open(self, limits: Limits = NO_LIMITS, scopes: tuple[Scope, ...] = ("generate",)) -> Door:
        shown, key = keyfile.make("alice", scopes, limits)
        path = self.folder / "keys.toml"
        keyfile.write(path, [key])
        store = await Store.connect(self.url, f"limits-{time.time_ns()}")
        self.edges.stack.push_async_callback(store.close)
        limiter = Limiter(Rates(store))
        edge = await self.edges.start(options=Options(keys=Keys.read(str(path)), limiter=limiter))
        return Door(edge, limiter, shown, key, path)


@pytest.fixture
async def doors(edges: Edges, tmp_path: Path, redis_url: str) -> Doors:
    edges.cell.script = lambda _: Script(tuple(b"abcd"))
    return Doors(edges, tmp_path, redis_url)


async def test_requests_a_minute(doors: Doors) -> None:
    door = await doors.open(Limits(requests_per_min=2))
    replies = [await door.ask() for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    first, refused = replies[0].headers, replies[2]
    assert first["x-ratelimit-limit-requests"] == "2"
    assert first["x-ratelimit-remaining-requests"] == "1"
    assert 29.0 < float(first["x-ratelimit-reset-requests"].removesuffix("s")) <= 30.0
    assert refused.json()["error"] == {
        "message": "this key's limit of 2 requests a minute is reached",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert 28_000 < int(refused.headers["retry-after-ms"]) <= 30_000
    assert 29 <= int(refused.headers["retry-after"]) <= 30
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.headers["x-llm-d-request-dropped-reason"] == "rate"
    again = await door.ask()  # from memory, and sooner by what has passed
    assert int(again.headers["retry-after-ms"]) < int(refused.headers["retry-after-ms"])
    assert door.limiter.refused == 2


async def test_tokens_are_charged_by_the_promise_and_settled_by_the_use(doors: Doors) -> None:
    """Prompt 2 tokens or so and max_tokens 400 of 1000: two at once fit; each gives back what it has not used."""
    door = await doors.open(Limits(tokens_per_min=1_000))
    first = await door.ask(max_tokens=400)
    usage = first.json()["usage"]["total_tokens"]
    assert int(first.headers["x-ratelimit-remaining-tokens"]) < 600
    await until(lambda: not door.limiter._settling)
    second = await door.ask(max_tokens=400)
    left = int(second.headers["x-ratelimit-remaining-tokens"])
    charged = 400 + first.json()["usage"]["prompt_tokens"]
    assert 1_000 - usage - charged - 2 <= left <= 1_000 - usage - charged + 20
    assert second.status_code == 200


async def test_too_large_for_ever(doors: Doors) -> None:
    door = await doors.open(Limits(tokens_per_min=100))
    refused = await door.ask(max_tokens=200)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "max_tokens")
    assert "retry-after" not in refused.headers


async def test_concurrent_requests_and_their_end(doors: Doors) -> None:
    door = await doors.open(Limits(concurrent=1))
    doors.edges.cell.script = lambda _: Script(tuple(b"x" * 20), wait_s=0.05)
    running = asyncio.ensure_future(door.ask(max_tokens=20))
    await until(lambda: len(door.edge.front.gateway.streams) == 1)
    refused = await door.ask()
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert (await running).status_code == 200
    await until(lambda: not door.limiter._settling)
    assert (await door.ask()).status_code == 200


async def test_a_quota_lasts_to_midnight(doors: Doors) -> None:
    door = await doors.open(Limits(tokens_per_day=60))
    replies = [await door.ask(max_tokens=30) for _ in range(12)]
    refused = replies[-1]
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert int(refused.headers["retry-after"]) == pytest.approx(86_400 - time.time() % 86_400, abs=3)


async def test_a_twin_and_a_refusal_cost_nothing(doors: Doors) -> None:
    door = await doors.open(Limits(requests_per_min=10, tokens_per_min=10_000))
    key = {"authorization": f"Bearer {door.shown}", "idempotency-key": "same"}
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}
    lefts = []
    for _ in range(2):
        reply = await door.edge.http.post(CHAT, json=body, headers=key)
        lefts.append(reply.headers.get("x-ratelimit-remaining-requests"))
    bad = await door.ask(temperature=9)
    assert bad.status_code == 400
    assert (await door.ask()).headers["x-ratelimit-remaining-requests"] == "8", lefts


async def test_grpc_says_the_same(doors: Doors) -> None:
    door = await doors.open(Limits(requests_per_min=1))
    message = gateway_pb2.GenerateRequest(
        messages=[gateway_pb2.Message(role="user", content=[gateway_pb2.ContentPart(text="hi")])]
    )
    async with grpc.aio.insecure_channel(door.edge.grpc) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)  # type: ignore[no-untyped-call]
        metadata = (("authorization", f"Bearer {door.shown}"),)
        assert [event async for event in stub.Generate(message, metadata=metadata)]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            _ = [event async for event in stub.Generate(message, metadata=metadata)]
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    pairs: Any = caught.value.trailing_metadata()
    trailing = dict(pairs)
    assert trailing["x-ratelimit-remaining-requests"] == "0"
    retry = error_details_pb2.RetryInfo()
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    assert any(detail.Unpack(retry) for detail in status.details)
    assert 55 < retry.retry_delay.ToNanoseconds() / 1e9 <= 60
    packed = common_pb2.Failure.FromString(trailing["headrace-failure-bin"])
    assert isinstance(errors.of_failure(packed), RateLimited)


@pytest.mark.parametrize(
    ("scopes", "path", "body", "status"),
    [
        (("generate",), CHAT, {}, 200),
        (("batch",), CHAT, {}, 403),
        (("batch",), CHAT, {"slo_class": "batch-1"}, 200),
        (("operate",), CHAT, {}, 403),
        (("operate",), "/metrics", None, 200),
        (("metrics",), "/metrics", None, 200),
        (("generate",), "/metrics", None, 403),
        (("metrics",), "/v1/models", None, 403),
        (("metrics",), "/health", None, 200),
        (("metrics",), "/openapi.json", None, 200),
    ],
)
async def test_scopes(doors: Doors, scopes: tuple[Scope, ...], path: str, body: Any, status: int) -> None:
    door = await doors.open(scopes=scopes)
    http, key = door.edge.http, {"authorization": f"Bearer {door.shown}"}
    if body is None:
        reply = await http.get(path, headers=key)
    else:
        headers = key | ({"x-headrace-slo-class": body["slo_class"]} if body else {})
        message = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
        reply = await http.post(path, json=message, headers=headers)
    assert reply.status_code == status, reply.text


async def test_what_is_open_without_a_key(doors: Doors) -> None:
    door = await doors.open()
    answers = {path: (await door.edge.http.get(path)).status_code for path in ("/health", "/openapi.json", "/metrics")}
    assert answers == {"/health": 200, "/openapi.json": 200, "/metrics": 401}


async def test_a_revoked_key_is_refused_within_seconds(doors: Doors) -> None:
    door = await doors.open()
    assert (await door.ask()).status_code == 200
    keyfile.write(door.path, [replace(door.key, revoked_s=time.time())])
    began_s = time.monotonic()
    while (await door.ask()).status_code == 200:
        assert time.monotonic() - began_s < keyring.RELOAD_S + 1.0
        await asyncio.sleep(0.05)
    assert (await door.ask()).status_code == 401


async def test_redis_away_neither_opens_nor_closes(edges: Edges, tmp_path: Path, redis_server: RedisServer) -> None:
    edges.cell.script = lambda _: Script(tuple(b"abcd"))
    door = await Doors(edges, tmp_path, redis_server.url).open(Limits(requests_per_min=4))
    assert [(await door.ask()).status_code for _ in range(2)] == [200, 200]
    redis_server.kill()
    assert [(await door.ask()).status_code for _ in range(3)] == [200, 200, 429]
    assert door.limiter.local_takes == 3
    redis_server.start()


@pytest.mark.parametrize(
    ("left", "told"), [(9.99, "60ms"), (9.0, "6s"), (8.875, "6.75s"), (0.0, "1m0s"), (-50.0, "6m0s")]
)
def test_durations_as_openai_writes_them(left: float, told: str) -> None:
    said = dict(headers(Limits(requests_per_min=10), Verdict(requests_left=left)))
    assert said["x-ratelimit-reset-requests"] == told


async def test_the_official_client_reads_it(doors: Doors) -> None:
    import openai

    door = await doors.open(Limits(requests_per_min=1))
    client = openai.AsyncOpenAI(base_url=f"{door.edge.url}/v1", api_key=door.shown, max_retries=0)
    say = {"model": "profile-tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    assert await client.chat.completions.create(**say)  # type: ignore[call-overload]
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(**say)  # type: ignore[call-overload]
    assert caught.value.code == "rate_limit_exceeded"
    await client.close()
