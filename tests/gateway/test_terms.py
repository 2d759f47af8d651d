"""What a request asks for itself, on its way to the journal; what a full or a slow cell answers. Both protocols."""

import asyncio
from typing import Any

import pytest
from openai import AsyncOpenAI, RateLimitError

from headrace.client import AsyncClient, Client, Expired, InvalidInput, Overloaded, TooLate
from headrace.core import errors
from headrace.core.slo import Classes, SloClass
from headrace.core.types import End, Failure
from services.gateway import render
from services.gateway.auth import Keys
from tests.gateway.conftest import Edge, Edges, Options, until
from tests.gateway.standin import Script, StandIn

pytestmark = pytest.mark.timeout(60)
CHAT = "/v1/chat/completions"
REASONS = ("x-headrace-request-dropped-reason", "x-llm-d-request-dropped-reason")


def ask(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hi"}], **more}


async def test_the_journal_has_what_was_asked_for(edge: Edge, cell: StandIn) -> None:
    headers = {"x-llm-d-slo-tpot-ms": "25", "x-llm-d-inference-fairness-id": "agent-7"}
    body = ask(ttft_target_ms=1_500, nvext={"agent_hints": {"priority": 2}})
    assert (await edge.http.post(CHAT, json=body, headers=headers)).status_code == 200
    one = cell.requests[-1]
    assert (one.ttft_s, one.tbt_s, one.priority, one.flow) == (1.5, 0.025, 2, "default agent-7")
    async with AsyncClient(edge.grpc) as sdk:
        await sdk.generate("hi", ttft_target_s=1.5, tbt_target_s=0.025, priority=9, flow="agent-7").text()
        two = cell.requests[-1]
        await sdk.generate("hi").text()
    assert (two.ttft_s, two.tbt_s, two.priority, two.flow) == (1.5, 0.025, 3, one.flow)
    none = cell.requests[-1]
    assert (none.ttft_s, none.tbt_s, none.priority, none.flow) == (0.0, 0.0, 0, "")


async def test_the_openai_client_asks_in_its_own_words(edge: Edge, cell: StandIn) -> None:
    async with AsyncOpenAI(base_url=edge.url + "/v1", api_key="none") as client:
        words: Any = {"model": "profile-tiny", "messages": [{"role": "user", "content": "hi"}]}
        await client.chat.completions.create(**words, service_tier="flex", extra_body={"flow": "a", "priority": -1})
        one = cell.requests[-1]
        await client.chat.completions.create(**words, service_tier="priority")
        two = cell.requests[-1]
    assert (one.slo_class, one.priority, one.flow) == ("batch-1", 1, "default a")
    assert (two.slo_class, two.priority) == ("interactive", 1)


async def test_equal_flows_of_two_tenants_are_two(edges: Edges, cell: StandIn, tmp_path: Any) -> None:
    path = tmp_path / "keys"
    path.write_text("key-a alice\nkey-b bob\n")
    edge = await edges.start(options=Options(keys=Keys.read(str(path))))
    for key in ("key-a", "key-b"):
        await edge.http.post(CHAT, json=ask(flow="x"), headers={"authorization": f"Bearer {key}"})
    assert [request.flow for request in cell.requests] == ["alice x", "bob x"]


CLASS_ROWS: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "the default": ({}, {}, "silver"),
    "the body": ({"slo_class": "gold"}, {"x-headrace-slo-class": "silver"}, "gold"),
    "the header": ({}, {"x-headrace-slo-class": "gold", "x-llm-d-inference-objective": "silver"}, "gold"),
    "an objective that names one": ({}, {"x-llm-d-inference-objective": "gold"}, "gold"),
    "an objective that names none": ({}, {"x-llm-d-inference-objective": "food-review"}, "silver"),
    "the older objective, where the newer names none": (
        {},
        {"x-llm-d-inference-objective": "food-review", "x-gateway-inference-objective": "gold"},
        "gold",
    ),
    "flex where there is no batch-1": ({"service_tier": "flex"}, {}, "silver"),
}


@pytest.fixture
async def metals(edges: Edges) -> Edge:
    named = {name: SloClass(name, 1.0, timeout_s, 100) for name, timeout_s in (("gold", 7.0), ("silver", 9.0))}
    return await edges.start(options=Options(classes=Classes(named, "silver")))


@pytest.mark.parametrize(("body", "headers", "name"), CLASS_ROWS.values(), ids=CLASS_ROWS.keys())
async def test_classes_are_those_of_the_configuration(
    metals: Edge, cell: StandIn, body: dict[str, Any], headers: dict[str, str], name: str
) -> None:
    assert (await metals.http.post(CHAT, json=ask(**body), headers=headers)).status_code == 200
    request = cell.requests[-1]
    assert request.slo_class == name
    assert request.deadline_s - request.accepted_s == pytest.approx({"gold": 7.0, "silver": 9.0}[name], abs=0.5)


async def test_a_class_that_is_not_configured(metals: Edge) -> None:
    error = (await metals.http.post(CHAT, json=ask(slo_class="interactive"))).json()["error"]
    assert (error["code"], error["param"]) == ("invalid_input", "slo_class")
    assert "gold, silver" in error["message"]


# --- a cell that is full, or slow ---


async def waits(edge: Edge, cell: StandIn, wait_s: float, least_s: float) -> None:
    cell.wait_s, cell.least_wait_s = wait_s, least_s
    await until(lambda: (c := edge.front.gateway.cell) and c.classes["interactive"].least_wait_s == least_s)


async def test_a_full_class_says_how_long_its_queue_takes(edge: Edge, cell: StandIn) -> None:
    cell.queued = cell.queue_limit = 7
    await waits(edge, cell, 12.5, 3.0)
    reply = await edge.http.post(CHAT, json=ask())
    assert (reply.status_code, reply.json()["error"]["code"]) == (429, "overloaded")
    assert (reply.headers["retry-after"], reply.headers["retry-after-ms"]) == ("13", "12500"), "not before its time"
    assert [reply.headers[name] for name in REASONS] == ["capacity", "capacity"]
    assert 'headrace_estimated_wait_seconds{slo_class="interactive"} 12.5' in (await edge.http.get("/metrics")).text


@pytest.mark.parametrize(
    ("after_s", "seconds", "milliseconds"), [(12.5, 13, 12_500), (3.0, 3, 3_000), (3.0003, 4, 3_001), (0.0002, 1, 1)]
)
def test_no_header_sends_anybody_back_before_the_time(after_s: float, seconds: int, milliseconds: int) -> None:
    """And the two of them say the same."""
    told = dict(render.error_headers(errors.Overloaded("full", retry_after_s=after_s)))
    assert (int(told[b"retry-after"]), int(told[b"retry-after-ms"])) == (seconds, milliseconds)


async def test_what_cannot_begin_before_its_deadline_is_refused_at_once(edge: Edge, cell: StandIn) -> None:
    await waits(edge, cell, 40.0, 30.0)
    reply = await edge.http.post(CHAT, json=ask(timeout_s=10))
    assert (reply.status_code, reply.json()["error"]["code"]) == (429, "deadline_unreachable")
    assert 19.0 < int(reply.headers["retry-after-ms"]) / 1e3 <= 20.1
    assert [reply.headers[name] for name in REASONS] == ["deadline", "deadline"]
    assert (await edge.http.post(CHAT, json=ask(timeout_s=60))).status_code == 200
    assert len(cell.requests) == 1


@pytest.mark.parametrize(
    ("wish", "status"),
    [
        ({"priority": -1}, 200),
        ({"ttft_target_ms": 500}, 200),
        ({"service_tier": "priority"}, 200),
        ({"priority": 1}, 429),
        ({"ttft_target_ms": 900_000}, 429),
        ({"ttft_target_ms": 10_000, "priority": 1}, 429),
    ],
    ids=["sooner", "sooner by its target", "sooner by its tier", "later", "later by its target", "as its class"],
)
async def test_what_its_class_waits_says_nothing_of_those_who_go_before(
    edge: Edge, cell: StandIn, wish: dict[str, Any], status: int
) -> None:
    """The queue manager, which knows where it would stand, may still refuse it."""
    await waits(edge, cell, 40.0, 30.0)
    assert (await edge.http.post(CHAT, json=ask(timeout_s=10, **wish))).status_code == status


async def test_the_sdk_does_not_wait_longer_than_its_request_may(edge: Edge, cell: StandIn) -> None:
    await waits(edge, cell, 40.0, 30.0)
    async with AsyncClient(edge.grpc) as client:
        with pytest.raises(TooLate) as caught:
            await client.generate("hi", timeout_s=10.0).text()

    def blocking() -> None:
        with Client(edge.grpc) as client:
            client.generate("hi", timeout_s=10.0).text()

    with pytest.raises(Overloaded):
        await asyncio.to_thread(blocking)
    assert 19.0 < caught.value.retry_after_s <= 20.1
    trailing: Any = caught.value.__cause__.trailing_metadata()  # type: ignore[union-attr]
    assert [dict(trailing)[name] for name in REASONS] == ["deadline", "deadline"]
    assert cell.requests == []


async def test_early_rejection_can_be_switched_off(edges: Edges, cell: StandIn) -> None:
    edge = await edges.start(options=Options(early_rejection=False))
    await waits(edge, cell, 40.0, 30.0)
    assert (await edge.http.post(CHAT, json=ask(timeout_s=10))).status_code == 200


async def test_the_openai_client_is_told_to_come_back(edge: Edge, cell: StandIn) -> None:
    await waits(edge, cell, 40.0, 30.0)
    async with AsyncOpenAI(base_url=edge.url + "/v1", api_key="none", max_retries=0, timeout=5.0) as client:
        with pytest.raises(RateLimitError) as caught:
            await client.chat.completions.create(
                model="profile-tiny", messages=[{"role": "user", "content": "hi"}], stream=True
            )
    assert caught.value.response.headers[REASONS[0]] == "deadline", "its read time-out is the request's"


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        ("overloaded", Overloaded, "capacity"),
        ("deadline_unreachable", TooLate, "deadline"),
        ("ttl_expired", Expired, "ttl"),
    ],
)
async def test_what_the_queue_manager_gives_back_says_why(
    edge: Edge, cell: StandIn, code: str, kind: type[Overloaded], reason: str
) -> None:
    cell.script = lambda _: Script((), End("error", Failure(code, "sorry", "", 2.0)), by_manager=True)
    for stream in (False, True):
        reply = await edge.http.post(CHAT, json=ask(stream=stream))
        assert (reply.status_code, reply.json()["error"]["code"]) == (429, code)
        assert [reply.headers[name] for name in REASONS] == [reason, reason]
        assert reply.headers["retry-after"] == "2"
    async with AsyncClient(edge.grpc) as client:
        with pytest.raises(kind) as caught:
            await client.generate("hi").text()
    assert type(caught.value) is kind


async def test_what_is_no_overload_names_no_such_reason(edge: Edge) -> None:
    reply = await edge.http.post(CHAT, json=ask(priority="high"))
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "priority")
    assert not any(name in reply.headers for name in REASONS)
    async with AsyncClient(edge.grpc) as client:
        with pytest.raises(InvalidInput) as caught:
            await client.generate("hi", flow="a\nb").text()
    assert caught.value.field == "flow"


async def test_the_document_describes_all_of_it(edge: Edge) -> None:
    document = (await edge.http.get("/openapi.json")).json()
    fields = document["components"]["schemas"]["ChatRequest"]["properties"]
    asked = {"ttft_target_ms", "tbt_target_ms", "flow", "priority", "nvext", "slo_class", "service_tier", "timeout_s"}
    assert all("description" in fields[name] or "$ref" in str(fields[name]) for name in asked)
    headers = {one["name"] for one in document["paths"][CHAT]["post"]["parameters"]}
    assert {"x-llm-d-slo-ttft-ms", "x-slo-tpot-ms", "x-gateway-inference-fairness-id"} <= headers
    assert {"x-llm-d-inference-objective", "x-stainless-read-timeout"} <= headers
