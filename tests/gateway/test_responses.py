"""/v1/responses at a real gateway: the order of its events, items in and out, by the official client."""

import json
import re
from typing import Any

import pytest
from openai import APIStatusError, AsyncOpenAI
from pydantic import BaseModel

from headrace.core.types import End, Failure, TokenLogprobs
from headrace.engines import grammar
from headrace.engines.families import family
from tests.gateway.conftest import Edge
from tests.gateway.standin import Script, StandIn
from tests.gateway.test_http import picture
from tests.gateway.test_tool_calls import ARGUMENTS, ONE, TWO, WEATHER

pytestmark = pytest.mark.timeout(30)
PATH = "/v1/responses"
TOOLS: Any = [
    {"type": "function", "name": "weather", "parameters": WEATHER, "strict": True},
    {"type": "function", "name": "now"},
]


def client(edge: Edge) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{edge.url}/v1", api_key="any", max_retries=0)


def events(text: str) -> list[Any]:
    found = []
    for block in text.split("\n\n"):
        if block:
            name, data = block.split("\n")
            found.append(json.loads(data.removeprefix("data: ")))
            assert name == f"event: {found[-1]['type']}"
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def prompt_of(cell: StandIn) -> str:
    pieces = family("profile-tiny").pieces
    return b"".join([pieces[token] for token in cell.requests[-1].prompt.tokens]).decode()


async def test_whole(edge: Edge, cell: StandIn) -> None:
    async with client(edge) as openai:
        response = await openai.responses.create(
            model="profile-tiny", input="hi", instructions="Be brief.", max_output_tokens=20, metadata={"a": "b"}
        )
    assert (response.status, response.output_text, response.error) == ("completed", "hello", None)
    assert response.usage is not None
    assert (response.usage.output_tokens, response.usage.input_tokens) == (5, len(cell.requests[-1].prompt.tokens))
    assert (response.metadata, response.instructions, response.max_output_tokens) == ({"a": "b"}, "Be brief.", 20)
    assert (response.id, response.output[0].type) == (f"resp_{cell.requests[-1].id}", "message")
    assert response.text is not None
    assert response.text.format is not None
    assert response.text.format.type == "text"
    assert prompt_of(cell) == "system\nBe brief.\nuser\nhi\nassistant\n"


async def test_the_order_of_events(edge: Edge) -> None:
    found = events((await edge.http.post(PATH, json={"input": "hi", "stream": True})).text)
    assert [event["type"].removeprefix("response.") for event in found] == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *["output_text.delta"] * 5,
        *("output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    assert "".join(event["delta"] for event in found if "delta" in event) == "hello"
    last = found[-1]["response"]
    assert found[0]["response"]["status"] == "in_progress"
    assert (last["status"], last["output"][0]["content"][0]["text"]) == ("completed", "hello")
    assert last["output"][0] == found[-2]["item"]
    assert last["usage"]["output_tokens"] == 5
    assert len({event["item_id"] for event in found if "item_id" in event}) == 1


async def test_the_official_client_accumulates_a_stream(edge: Edge, cell: StandIn) -> None:
    """Its own checks of order and indexes run over text and two calls."""
    cell.script = lambda _: Script(tokens=tuple(f"Well. {ONE}\n{TWO}".encode()))
    async with (
        client(edge) as openai,
        openai.responses.stream(
            model="profile-tiny", input=[{"role": "user", "content": "weather?"}], tools=TOOLS
        ) as stream,
    ):
        kinds = [event.type async for event in stream]
        response = await stream.get_final_response()
    message, weather, now = response.output
    assert response.output_text == "Well. "
    assert weather.type == now.type == "function_call"
    assert (weather.name, weather.arguments, now.name, now.arguments) == ("weather", ARGUMENTS, "now", "{}")
    assert kinds.count("response.function_call_arguments.done") == 2
    assert kinds.count("response.output_item.done") == 3
    assert message.type == "message"
    assert message.status == weather.status == "completed"
    assert cell.requests[-1].sampling.grammar == grammar.tools(
        [("weather", WEATHER), ("now", {"type": "object", "properties": {}, "additionalProperties": False})],
        text=True,
        calls=8,
    )


class Person(BaseModel):
    name: str
    age: int


async def test_parsed_into_a_pydantic_model(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda _: Script(tokens=tuple(b'{"name": "Ada", "age": 36}'))
    async with client(edge) as openai:
        response = await openai.responses.parse(model="profile-tiny", input="who?", text_format=Person)
    assert response.output_parsed == Person(name="Ada", age=36)
    kind, schema = grammar.read(cell.requests[-1].sampling.grammar)
    assert (kind, schema["required"]) == ("json_schema", ["name", "age"])


async def test_a_conversation_goes_on(edge: Edge, cell: StandIn) -> None:
    """The output of one response, sent back as the official client has it, with the results of the calls."""
    cell.script = lambda _: Script(tokens=tuple(f"Well.\n{ONE}\n{TWO}".encode()))
    async with client(edge) as openai:
        asked: list[Any] = [{"role": "user", "content": [{"type": "input_text", "text": "weather?"}]}]
        first = await openai.responses.create(model="profile-tiny", input=asked, tools=TOOLS)
        asked += [item.model_dump() for item in first.output]
        asked += [
            {"type": "function_call_output", "call_id": item.call_id, "output": "sunny"}
            for item in first.output
            if item.type == "function_call"
        ]
        await openai.responses.create(model="profile-tiny", input=asked, tools=TOOLS)
    answer = "<tool_response>\nsunny\n</tool_response>"
    assert f"user\nweather?\nassistant\nWell.\n\n{ONE}\n{TWO}\nuser\n{answer}\n{answer}\n" in prompt_of(cell)


async def test_a_picture(edge: Edge, cell: StandIn) -> None:
    parts = [{"type": "input_image", "image_url": picture(), "detail": "auto"}, {"type": "input_text", "text": "?"}]
    reply = await edge.http.post(PATH, json={"input": [{"role": "user", "content": parts}]})
    assert reply.status_code == 200, reply.text
    assert cell.requests[-1].media[0].meta.mime == "image/png"
    assert reply.json()["usage"]["input_tokens_details"]["image_tokens"] == cell.requests[-1].media[0].tokens


async def test_logprobs(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda _: Script(b"hi", logprobs={0: TokenLogprobs(-1.0), 1: TokenLogprobs(-2.0)})
    body = {"input": "a", "include": ["message.output_text.logprobs"]}
    part = (await edge.http.post(PATH, json=body)).json()["output"][0]["content"][0]
    assert [one["logprob"] for one in part["logprobs"]] == [-1.0, -2.0]
    found = events((await edge.http.post(PATH, json={**body, "stream": True})).text)
    assert [one["logprob"] for e in found if "delta" in e for one in e["logprobs"]] == [-1.0, -2.0]
    cell.requests.clear()
    await edge.http.post(PATH, json={"input": "a", "top_logprobs": 3})
    assert cell.requests[-1].sampling.logprobs == 3


async def test_cut_and_failed(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda _: Script(b"h", End("length"))
    whole = (await edge.http.post(PATH, json={"input": "a"})).json()
    assert (whole["status"], whole["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert whole["output"][0]["status"] == "incomplete"
    found = events((await edge.http.post(PATH, json={"input": "a", "stream": True})).text)
    assert found[-1]["type"] == "response.incomplete"
    cell.script = lambda _: Script(b"h", End("error", Failure("stage_error", "no")))
    found = events((await edge.http.post(PATH, json={"input": "a", "stream": True})).text)
    assert found[-1]["type"] == "response.failed"
    assert found[-1]["response"]["error"] == {"code": "stage_error", "message": "no"}
    cell.script = lambda _: Script(b"", End("stop"))
    empty = (await edge.http.post(PATH, json={"input": "a"})).json()
    assert (empty["status"], empty["output"][0]["content"][0]["text"]) == ("completed", "")
    assert events((await edge.http.post(PATH, json={"input": "a", "stream": True})).text)[-1]["response"]["output"]


def asked(**item: Any) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": "a"}, item]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"content": "a"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
        (asked(type="web_search_call"), "input[1].type"),
        (asked(type="function_call", call_id="c", name="f", arguments="["), "input[1].arguments"),
        (asked(type="function_call_output", call_id="c", output="1"), "input[1].call_id"),
        (asked(role="assistant", content="b"), "input.role"),
        ({"input": "a", "store": True}, "store"),
        ({"input": "a", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": "a", "conversation": "conv_1"}, "conversation"),
        ({"input": "a", "background": True}, "background"),
        ({"input": "a", "reasoning": {"effort": "high"}}, "reasoning"),
        ({"input": "a", "truncation": "auto"}, "truncation"),
        ({"input": "a", "max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "a", "max_output_tokens": 9000}, "max_output_tokens"),
        ({"input": "a" * 9000}, "input"),
        ({"input": "a", "text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        (
            {"input": "a", "text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "wat"}}}},
            "text.format.schema",
        ),
        ({"input": "a", "text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"input": "a", "text": {"verbosity": "high"}}, "text.verbosity"),
        ({"input": "a", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": "a", "tools": [{"type": "function"}]}, "tools[0]"),
        (
            {"input": "a", "tools": [{"type": "function", "name": "f", "parameters": {"type": "wat"}}]},
            "tools[0].parameters",
        ),
        ({"input": "a", "tools": TOOLS, "tool_choice": {"type": "function", "name": "g"}}, "tool_choice.name"),
        ({"input": "a", "stop": "b"}, "stop"),
    ],
)
async def test_refused_by_its_name(edge: Edge, cell: StandIn, body: dict[str, Any], field: str) -> None:
    reply = await edge.http.post(PATH, json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, field), reply.text
    assert cell.requests == []


async def test_openapi_describes_all_endpoints_that_answer(edge: Edge) -> None:
    text = (await edge.http.get("/openapi.json")).text
    document = json.loads(text)
    for path, (request, whole, event) in {
        "/v1/chat/completions": ("ChatRequest", "ChatCompletion", "ChatChunk"),
        "/v1/completions": ("CompletionRequest", "Completion", "Completion"),
        "/v1/responses": ("ResponsesRequest", "Response", "Event"),
    }.items():
        operation = document["paths"][path]["post"]
        content = operation["responses"]["200"]["content"]
        last, piece = content["text/event-stream"]["schema"]["properties"]["data"]["anyOf"]
        said = [operation["requestBody"]["content"]["application/json"], content["application/json"]]
        schemas = [*(one["schema"] for one in said), piece["contentSchema"]]
        assert [one["$ref"].rpartition("/")[2] for one in schemas] == [request, whole, event]
        assert last == {"const": "[DONE]"}
    referred = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert referred <= document["components"]["schemas"].keys()


async def test_a_refusal_is_the_clients_own_error(edge: Edge) -> None:
    async with client(edge) as openai:
        with pytest.raises(APIStatusError, match="previous_response_id"):
            await openai.responses.create(model="profile-tiny", input="a", previous_response_id="resp_1")
