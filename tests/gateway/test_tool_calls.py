"""Calls of tools at a real gateway: read from the text as it streams, told as OpenAI does, refused by their names."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI

from headrace.core.types import End, TokenLogprobs
from headrace.engines import grammar
from headrace.engines.families import family
from services.gateway.calls import CallReader, Said, collected
from tests.gateway.conftest import Edge, Edges
from tests.gateway.standin import Script, StandIn

pytestmark = pytest.mark.timeout(30)
CHAT = "/v1/chat/completions"
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "description": "Now.", "parameters": WEATHER, "strict": True}},
    {"type": "function", "function": {"name": "now"}},
]
ARGUMENTS = '{"city": "\\"}{ Zürich"}'
ONE = '<tool_call>\n{"name": "weather", "arguments": ' + ARGUMENTS + "}\n</tool_call>"
TWO = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}
OFFERED = [("weather", WEATHER), ("now", NO_ARGUMENTS)]


def ask(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "weather?"}], "tools": TOOLS, **more}


def read(pieces: list[str]) -> Said:
    """What all of it says."""
    reader, said = CallReader("a" * 32), Said()
    for piece in pieces:
        one = reader.feed(piece)
        assert len({call.index for call in one.calls}) == len(one.calls), "a call stands once in a chunk"
        said.content += one.content
        said.calls += one.calls
    said.content += reader.finish().content
    return said


TEXTS = [
    ("", "", []),
    ("Hello <tool> {}", "Hello <tool> {}", []),
    ("a <tool_call>\n{", "a <tool_call>\n{", []),  # the end came in the middle: it never became a call
    (ONE, "", [("weather", ARGUMENTS)]),
    (f"Let me see.\n{ONE}\n{TWO}", "Let me see.\n", [("weather", ARGUMENTS), ("now", "{}")]),
    (ONE[: ONE.index("}{")], "", [("weather", '{"city": "\\"')]),  # cut at the length
    ('<tool_call>\n{"name": "wea', "", []),
]


@pytest.mark.parametrize(("text", "content", "calls"), TEXTS)
@given(cuts=st.lists(st.integers(0, 200), max_size=12))
def test_however_it_is_cut_it_says_the_same(
    text: str, content: str, calls: list[tuple[str, str]], cuts: list[int]
) -> None:
    at = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    said = read([text[start:stop] for start, stop in itertools.pairwise(at)])
    assert said.content == content
    assert [(call.function.name, call.function.arguments) for call in collected(said.calls)] == calls


def client(edge: Edge) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{edge.url}/v1", api_key="any", max_retries=0)


async def test_the_official_client_streams_calls(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda _: Script(tokens=tuple(f"Well. {ONE}\n{TWO}".encode()))
    calls: dict[int, dict[str, str]] = {}
    content, reasons = "", []
    async with client(edge) as openai:
        stream = await openai.chat.completions.create(
            model="profile-tiny", messages=[{"role": "user", "content": "?"}], tools=TOOLS, stream=True
        )
        async for chunk in stream:
            (choice,) = chunk.choices
            content += choice.delta.content or ""
            reasons += [choice.finish_reason] if choice.finish_reason else []
            for piece in choice.delta.tool_calls or []:
                assert piece.function is not None
                if piece.index not in calls:
                    assert piece.type == "function"
                    calls[piece.index] = {"id": piece.id or "", "name": piece.function.name or "", "arguments": ""}
                else:
                    assert (piece.id, piece.function.name) == (None, None)
                calls[piece.index]["arguments"] += piece.function.arguments or ""
    assert (content, reasons) == ("Well. ", ["tool_calls"])
    assert [(call["name"], call["arguments"]) for call in calls.values()] == [("weather", ARGUMENTS), ("now", "{}")]
    assert len({call["id"] for call in calls.values()}) == 2


async def test_arguments_come_piece_by_piece(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda _: Script(tokens=tuple(ONE.encode()))
    reply = await edge.http.post(CHAT, json=ask(stream=True))
    chunks = [json.loads(line[6:]) for line in reply.text.split("\n\n") if line.startswith("data: {")]
    deltas = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    pieces = [call["function"]["arguments"] for call in deltas]
    assert len(pieces) > 10
    assert json.loads("".join(pieces)) == {"city": '"}{ Zürich'}


async def test_whole_and_attached(edges: Edges, edge: Edge, cell: StandIn) -> None:
    """Another gateway that reads it from the results finds the same calls with the same ids."""
    cell.script = lambda _: Script(tokens=tuple(ONE.encode()))
    reply = await edge.http.post(CHAT, json=ask())
    (choice,) = reply.json()["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert call["function"] == {"name": "weather", "arguments": ARGUMENTS}
    other = await edges.start("gw-b")
    again = await other.http.get(f"/v1/requests/{reply.headers['x-request-id']}/events")
    assert call["id"] in again.text
    assert '"finish_reason":"tool_calls"' in again.text


async def test_text_alone_and_a_cut_call(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda _: Script(tokens=tuple(b"No need."))
    message = (await edge.http.post(CHAT, json=ask())).json()["choices"][0]
    assert (message["message"]["content"], message["finish_reason"]) == ("No need.", "stop")
    assert "tool_calls" not in message["message"]
    cell.script = lambda _: Script(tokens=tuple(ONE.encode()[:50]), end=End("length"))
    cut = (await edge.http.post(CHAT, json=ask())).json()["choices"][0]
    assert cut["finish_reason"] == "length"
    assert ARGUMENTS.startswith(cut["message"]["tool_calls"][0]["function"]["arguments"])


async def test_a_stop_string_in_a_call_cuts_it(edge: Edge, cell: StandIn) -> None:
    """It is no call to be made then; one before it is."""
    cell.script = lambda _: Script(tokens=tuple(f"{TWO}\n{ONE}".encode()))
    cut = (await edge.http.post(CHAT, json=ask(stop="Zür"))).json()["choices"][0]
    assert cut["finish_reason"] == "stop"
    assert len(cut["message"]["tool_calls"]) == 2
    behind = (await edge.http.post(CHAT, json=ask(stop="\n</tool_call>"))).json()["choices"][0]
    assert behind["finish_reason"] == "tool_calls"
    assert [call["function"]["name"] for call in behind["message"]["tool_calls"]] == ["now"]


async def test_logprobs_beside_calls(edge: Edge, cell: StandIn) -> None:
    text = ONE.encode()
    cell.script = lambda _: Script(text, logprobs={index: TokenLogprobs(-1.0) for index in range(len(text))})
    streamed = await edge.http.post(CHAT, json=ask(logprobs=True, stream=True))
    whole = (await edge.http.post(CHAT, json=ask(logprobs=True))).json()["choices"][0]
    assert len(whole["logprobs"]["content"]) == len(text)
    assert streamed.text.count('"logprob":-1.0') == len(text)


@pytest.mark.parametrize(
    ("body", "rules"),
    [
        ({}, grammar.tools(OFFERED, text=True, calls=8)),
        ({"tool_choice": "auto", "parallel_tool_calls": False}, grammar.tools(OFFERED, text=True, calls=1)),
        ({"tool_choice": "none"}, b""),
        ({"tool_choice": "required"}, grammar.tools(OFFERED, text=False, calls=8)),
        (
            {"tool_choice": {"type": "function", "function": {"name": "now"}}},
            grammar.tools(OFFERED[1:], text=False, calls=1),
        ),
        ({"response_format": {"type": "json_object"}}, grammar.tools(OFFERED, text={"type": "object"}, calls=8)),
        ({"response_format": {"type": "json_object"}, "tool_choice": "none"}, grammar.json_object()),
        ({"tools": [], "tool_choice": "auto"}, b""),
    ],
)
async def test_the_grammar_of_the_answer(edge: Edge, cell: StandIn, body: dict[str, Any], rules: bytes) -> None:
    assert (await edge.http.post(CHAT, json=ask(**body))).status_code == 200
    assert cell.requests[-1].sampling.grammar == rules


def function(**members: Any) -> dict[str, Any]:
    return {"tools": [TOOLS[0], {"type": "function", "function": members}]}


def said(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "a"}, *messages]}


def called(**function: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"tools": [{**TOOLS[0], "type": "web_search"}]}, "tools[0].type"),
        ({"tools": [TOOLS[0]] * 129}, "tools"),
        ({"tools": [TOOLS[0]] * 2}, "tools"),
        (function(name="a b"), "tools[1].function"),
        (function(name=""), "tools[1].function"),
        (function(name="f", parameters={"type": "wat"}), "tools[1].function.parameters"),
        (function(name="f", parameters={"enum": ["x" * 70_000]}), "tools[1].function"),
        (function(name="f", arguments={}), "tools[1].function.arguments"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "later"}}}, "tool_choice.function.name"),
        ({"tool_choice": "required", "tools": None}, "tool_choice"),
        ({"structured_outputs": {"regex": "a"}}, "structured_outputs"),
        (said({"role": "tool", "content": "1"}), "messages[1].tool_call_id"),
        (said({"role": "tool", "content": "1", "tool_call_id": "x"}), "messages[1].tool_call_id"),
        (said({"role": "assistant"}, {"role": "user", "content": "b"}), "messages[1].content"),
        (
            said(called(name="now", arguments="[1]"), {"role": "user", "content": "b"}),
            "messages[1].tool_calls[0].function.arguments",
        ),
        (said({**called(name="now", arguments="{}"), "role": "user"}), "messages[1].tool_calls"),
        (said(called(name="now", arguments="{}")), "messages[1].role"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_its_name(
    edge: Edge, cell: StandIn, body: dict[str, Any], field: str
) -> None:
    reply = await edge.http.post(CHAT, json={**ask(), **body})
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, field), error
    assert cell.requests == []


async def test_a_conversation_goes_on_behind_calls(edge: Edge, cell: StandIn) -> None:
    """The answer's message is sent back as the official client has it, with the results behind it."""
    cell.script = lambda _: Script(tokens=tuple(f"{ONE}\n{TWO}".encode()))
    messages: list[Any] = [{"role": "user", "content": "weather?"}]
    async with client(edge) as openai:
        first = await openai.chat.completions.create(model="profile-tiny", messages=messages, tools=TOOLS)
        message = first.choices[0].message
        assert message.tool_calls is not None
        messages += [message.model_dump()]
        messages += [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in message.tool_calls]
        await openai.chat.completions.create(model="profile-tiny", messages=messages, tools=TOOLS)
    kind = family("profile-tiny")
    prompt = b"".join([kind.pieces[token] for token in cell.requests[-1].prompt.tokens]).decode()
    assert f"assistant\n{ONE}\n{TWO}" in prompt
    answer = "<tool_response>\nsunny\n</tool_response>"
    assert f"user\n{answer}\n{answer}\n" in prompt
    assert '{"name": "weather", "description": "Now.", "parameters": {"type": "object"' in prompt.splitlines()[2]
