"""One gateway, several models: each with its own tokens, limits, metrics and word on who serves it."""

import json
from typing import Any

import grpc.aio
import pytest

from headrace.client import AsyncClient, ModelNotFound
from headrace.core.types import End, Request, StageSpan
from headrace.engines.families import family
from headrace.mesh.errors import BadSetup
from headrace.v1 import gateway_pb2
from headrace.v1.gateway_pb2_grpc import GatewayServiceStub
from services.gateway.models import Models
from tests.gateway.conftest import Edge, Edges, Options, until
from tests.gateway.standin import Script, StandIn

pytestmark = pytest.mark.timeout(60)
CHAT = "/v1/chat/completions"
TINY, SMALL = "profile-tiny", "smollm2-135m"
SAID = "Two words: déjà vu."


def ask(model: str | None, text: str = "hi", **more: Any) -> dict[str, Any]:
    named = {} if model is None else {"model": model}
    return {**named, "messages": [{"role": "user", "content": text}], **more}


def says_the_same(request: Request) -> Script:
    """In the tokens of the model that it is for."""
    tokens = tuple(SAID.encode()) if request.model == TINY else tuple(family(SMALL).encode(SAID))
    return Script(tokens)


@pytest.fixture
async def both(edges: Edges, cell: StandIn) -> Edge:
    cell.models, cell.script = (TINY, SMALL), says_the_same
    edge = await edges.start(options=Options(models=(SMALL, TINY)))
    await until(lambda: (c := edge.front.gateway.cell) and len(c.modalities) == 2)
    return edge


@pytest.mark.parametrize(("asked", "answers"), [(None, SMALL), ("", SMALL), (SMALL, SMALL), (TINY, TINY)])
async def test_each_answer_is_in_the_tokens_of_its_model(
    both: Edge, cell: StandIn, asked: str | None, answers: str
) -> None:
    whole = (await both.http.post(CHAT, json=ask(asked))).json()
    request = cell.requests[-1]
    assert (request.model, whole["model"]) == (answers, answers)
    assert whole["choices"][0]["message"]["content"] == SAID
    stream = (await both.http.post(CHAT, json=ask(asked, stream=True))).text
    chunks = [json.loads(line.removeprefix("data: ")) for line in stream.split("\n\n") if line.startswith("data: {")]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == SAID
    assert {chunk["model"] for chunk in chunks} == {answers}
    async with AsyncClient(both.grpc) as sdk:
        answer = sdk.generate("hi", model=asked or "", logprobs=0)
        assert await answer.text() == SAID
    assert cell.requests[-1].prompt == request.prompt == family(answers).render(_messages(), ())


def _messages() -> Any:
    from headrace.engines.families import ChatMessage, TextPart

    return [ChatMessage("user", (TextPart("hi"),))]


async def test_a_model_that_nobody_configured(both: Edge, cell: StandIn) -> None:
    error = (await both.http.post(CHAT, json=ask("gpt-9"))).json()["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert all(repr(model) in error["message"] for model in (SMALL, TINY))
    async with AsyncClient(both.grpc) as sdk:
        with pytest.raises(ModelNotFound):
            await sdk.generate("hi", model="gpt-9").text()
    assert cell.requests == []
    assert 'headrace_refused_total{code="model_not_found"} 2.0' in (await both.http.get("/metrics")).text


async def test_limits_are_each_models_own(both: Edge, cell: StandIn) -> None:
    """Of context, and of what it can see."""
    long = "x" * 20_000  # 20,000 tokens of one model, a few thousand of the other
    replies = {model: await both.http.post(CHAT, json=ask(model, long)) for model in (TINY, SMALL)}
    assert {model: reply.status_code for model, reply in replies.items()} == {TINY: 400, SMALL: 200}


async def test_who_serves_what(both: Edge, cell: StandIn) -> None:
    cell.models = (TINY,)
    await until(lambda: (c := both.front.gateway.cell) and len(c.modalities) == 1)
    listed = (await both.http.get("/v1/models")).json()["data"]
    assert [(model["id"], model["servable"]) for model in listed] == [(SMALL, False), (TINY, True)]
    assert [(await both.http.get(f"/v1/models/{model}")).json()["id"] for model in (SMALL, TINY)] == [SMALL, TINY]
    assert (await both.http.get("/v1/models/gpt-9")).status_code == 404
    assert (await both.http.get("/v1/models/")).status_code == 404
    assert (await both.http.get("/health")).json() == {"status": "ok", "models": {SMALL: False, TINY: True}}
    async with grpc.aio.insecure_channel(both.grpc) as channel:
        stub: Any = GatewayServiceStub(channel)  # type: ignore[no-untyped-call]
        told = (await stub.ListModels(gateway_pb2.ListModelsRequest(), timeout=10)).models
    assert [(model.id, model.servable) for model in told] == [(SMALL, False), (TINY, True)]
    assert [(await both.http.post(CHAT, json=ask(model))).status_code for model in (SMALL, TINY)] == [503, 200]


async def test_metrics_name_the_configured_models_alone(both: Edge, cell: StandIn) -> None:
    for model in (TINY, TINY, SMALL, "gpt-9", "anything"):
        await both.http.post(CHAT, json=ask(model))
    lines = (await both.http.get("/metrics")).text.splitlines()
    assert f'vllm:time_to_first_token_seconds_count{{model_name="{TINY}"}} 2.0' in lines
    assert f'vllm:request_success_total{{finished_reason="stop",model_name="{SMALL}"}} 1.0' in lines
    assert f'vllm:kv_cache_usage_perc{{model_name="{SMALL}"}} 0.0' in lines
    labels = {line.split('model_name="')[1].split('"')[0] for line in lines if "model_name" in line}
    assert labels == {SMALL, TINY}
    assert not any(line.startswith("vllm:num_requests_waiting{") for line in lines), "nobody has counted by model"


async def test_one_request_counts_once_however_often_it_was_evicted(both: Edge, cell: StandIn) -> None:
    """Its decode time is that of all its stays in engines; each eviction is a preemption."""
    stages = [("queue", 0.0, 1.0), ("prefill", 1.0, 1.5), ("decode", 1.5, 2.5), ("evicted", 2.5, 9.0)]
    stages += [("transfer", 9.0, 9.5), ("decode", 9.5, 10.5), ("evicted", 10.5, 12.0), ("decode", 12.0, 12.5)]
    timeline = tuple(StageSpan(stage, start_s, end_s, "w-0") for stage, start_s, end_s in stages)
    cell.script = lambda request: Script(
        tuple(b"hello"), End("stop", timeline=timeline if request.model == TINY else ())
    )
    for model in (TINY, SMALL):
        await both.http.post(CHAT, json=ask(model))
    lines = (await both.http.get("/metrics")).text.splitlines()
    told = {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith("vllm:")}
    assert told[f'vllm:num_preemptions_total{{model_name="{TINY}"}}'] == 2.0
    assert told[f'vllm:num_preemptions_total{{model_name="{SMALL}"}}'] == 0.0
    seconds = {"queue": 1.0, "prefill": 0.5, "decode": 2.5, "inference": 3.0}
    for stage, total_s in seconds.items():
        name = f"vllm:request_{stage}_time_seconds"
        assert (told[f'{name}_count{{model_name="{TINY}"}}'], told[f'{name}_sum{{model_name="{TINY}"}}']) == (
            1.0,
            total_s,
        )


async def test_a_stream_of_a_model_that_only_another_gateway_knows(both: Edge, edges: Edges, cell: StandIn) -> None:
    cell.script = lambda _: Script(tuple(b"x" * 20), wait_s=0.1)
    other = await edges.start("gw-b", Options(models=(SMALL,)))
    async with AsyncClient(both.grpc) as sdk, AsyncClient(other.grpc) as elsewhere:
        answer = sdk.generate("hi", model=TINY)
        async for _ in answer:
            break
        reply = await other.http.get(f"/v1/requests/{answer.request_id}/events")
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
        with pytest.raises(ModelNotFound):
            await elsewhere.attach(answer.request_id).text()
        assert not any(heard.startswith("cancel") for heard in cell.heard)
        await answer.close()


def test_two_models_of_one_name() -> None:
    with pytest.raises(BadSetup, match=TINY):
        Models([family(TINY), family(TINY)])
