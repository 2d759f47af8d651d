"""response_format and its kin at a real gateway: the grammar in the journal, the 400s, the clients."""

import json
from typing import Any

import grpc
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from headrace.client import AsyncClient, InvalidInput
from headrace.engines import grammar
from headrace.v1 import common_pb2
from tests.e2e.asking import ask as ask_grpc
from tests.e2e.asking import request
from tests.gateway.conftest import Edge, Edges
from tests.gateway.standin import Script, StandIn

pytestmark = pytest.mark.timeout(30)
CHAT = "/v1/chat/completions"
SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "string"}}, "required": ["b"]}
BAD = {"type": "object", "not": {}}
DEEP: dict[str, Any] = {"type": "object"}
for _ in range(40):
    DEEP = {"type": "object", "properties": {"a": DEEP}}


def ask(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hi"}], **more}


def of(schema: object, **more: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, **more}}}


@pytest.mark.parametrize(
    ("body", "rules"),
    [
        ({}, b""),
        ({"response_format": {"type": "text"}}, b""),
        ({"response_format": {"type": "json_object"}}, grammar.json_object()),
        (of(SCHEMA, strict=True, description="d"), grammar.json_schema(SCHEMA)),
        (of(SCHEMA, strict=False), grammar.json_schema(SCHEMA)),
        ({"structured_outputs": {"json": SCHEMA}}, grammar.json_schema(SCHEMA)),
        ({"structured_outputs": {"regex": "[a-z]+"}}, grammar.regex("[a-z]+")),
        ({"structured_outputs": {"choice": ["a", "b"]}}, grammar.choice(["a", "b"])),
        ({"structured_outputs": {"json_object": True}}, grammar.json_object()),
        ({"guided_json": json.dumps(SCHEMA)}, grammar.json_schema(SCHEMA)),
        ({"guided_regex": "a|b"}, grammar.regex("a|b")),
        ({"guided_choice": ["yes"], "response_format": {"type": "text"}}, grammar.choice(["yes"])),
    ],
)
async def test_what_is_asked_for_is_in_the_journal(
    edge: Edge, cell: StandIn, body: dict[str, Any], rules: bytes
) -> None:
    assert (await edge.http.post(CHAT, json=ask(**body))).status_code == 200
    assert cell.requests[-1].sampling.grammar == rules


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
        ),
        (of([]), "response_format.json_schema.schema"),
        (of(BAD), "response_format.json_schema.schema"),
        (of({"type": "string", "pattern": "("}), "response_format.json_schema.schema"),
        (of(DEEP), "response_format.json_schema.schema"),
        (of({"enum": ["x" * 70_000]}), "response_format.json_schema.schema"),
        (of({"$ref": "http://127.0.0.1:1/x"}), "response_format.json_schema.schema"),
        ({"response_format": {"type": "json_object"}, "ignore_eos": True}, "ignore_eos"),
        ({"response_format": {"type": "json_object"}, "guided_regex": "a"}, "guided_regex"),
        ({"guided_regex": "(?=a)b"}, "guided_regex"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_json": "{"}, "guided_json"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"json": SCHEMA, "regex": "a"}}, "structured_outputs"),
        ({"structured_outputs": {"grammar": "start: A"}}, "structured_outputs.grammar"),
    ],
)
async def test_what_cannot_be_kept_is_refused_by_its_name(
    edge: Edge, cell: StandIn, body: dict[str, Any], field: str
) -> None:
    reply = await edge.http.post(CHAT, json=ask(**body))
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, field), error
    assert error["message"]
    assert cell.requests == []


class Person(BaseModel):
    name: str
    age: int
    friends: list["Person"] = []


async def test_the_official_client_parses_into_a_pydantic_model(edge: Edge, cell: StandIn) -> None:
    """With $defs and a schema that refers to itself."""
    answer = {"name": "Ada", "age": 36, "friends": [{"name": "Bob", "age": 3, "friends": []}]}
    cell.script = lambda _: Script(tokens=tuple(json.dumps(answer).encode()))
    async with AsyncOpenAI(base_url=f"{edge.url}/v1", api_key="any", max_retries=0) as client:
        done = await client.chat.completions.parse(
            model="profile-tiny", messages=[{"role": "user", "content": "who?"}], response_format=Person
        )
    assert done.choices[0].message.parsed == Person.model_validate(answer)
    kind, schema = grammar.read(cell.requests[-1].sampling.grammar)
    assert kind == "json_schema"
    assert "$ref" in json.dumps(schema)


async def test_our_own_client(edge: Edge, cell: StandIn) -> None:
    asked: list[tuple[dict[str, Any], bytes]] = [
        ({"json_schema": SCHEMA}, grammar.json_schema(SCHEMA)),
        ({"json_object": True}, grammar.json_object()),
        ({"regex": "é+"}, grammar.regex("é+")),
        ({"choice": ["a"]}, grammar.choice(["a"])),
        ({}, b""),
    ]
    async with AsyncClient(edge.grpc) as client:
        for options, rules in asked:
            await client.generate("hi", **options).text()
            assert cell.requests[-1].sampling.grammar == rules
        with pytest.raises(InvalidInput) as caught:
            await client.generate("hi", json_schema=BAD).text()
        assert caught.value.field == "sampling.grammar"
        with pytest.raises(InvalidInput):
            client.generate("hi", json_object=True, regex="a")


async def test_grpc_takes_any_way_of_writing_it(edge: Edge, cell: StandIn) -> None:
    message = request("hi")
    message.sampling.CopyFrom(common_pb2.Sampling(grammar=b' {\n"choice" : ["a","b"] }'))
    await ask_grpc(edge.grpc, message)
    assert cell.requests[-1].sampling.grammar == grammar.choice(["a", "b"])
    message.sampling.grammar = b'{"lark": ""}'
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask_grpc(edge.grpc, message)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_retry_with_the_key_must_ask_for_the_same(edges: Edges, edge: Edge) -> None:
    headers = {"idempotency-key": "structured"}
    first = await edge.http.post(CHAT, json=ask(**of(SCHEMA)), headers=headers)
    same = await edge.http.post(CHAT, json=ask(**of(dict(SCHEMA))), headers=headers)
    other = await edge.http.post(CHAT, json=ask(**of({"type": "object"})), headers=headers)
    assert (first.status_code, same.status_code, other.status_code) == (200, 200, 409)
    assert same.json()["id"] == first.json()["id"]
