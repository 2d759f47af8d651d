"""Tools and several answers over gRPC, by the SDK at a real gateway: told as over HTTP, refused by their names, and
gone on with at another gateway."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from headrace.client import (
    AsyncClient,
    AsyncStream,
    Client,
    Conflict,
    InvalidInput,
    Message,
    StageError,
    Tool,
    ToolCall,
)
from headrace.core.types import End, Failure, Request
from headrace.engines import grammar
from headrace.engines.families import family
from headrace.v1 import gateway_pb2
from services.gateway.admission import choice_id
from tests.client.test_client import Cable
from tests.gateway.conftest import Edge, Edges, until
from tests.gateway.standin import Script, StandIn
from tests.gateway.test_tool_calls import ARGUMENTS, CHAT, OFFERED, ONE, TOOLS, TWO, WEATHER

pytestmark = pytest.mark.timeout(60)
WEATHER_TOOL, NOW_TOOL = Tool("weather", "Now.", WEATHER), Tool("now")
BOTH = [WEATHER_TOOL, NOW_TOOL]
SAID = f"Well. {ONE}\n{TWO}"
CALLED = [("weather", ARGUMENTS), ("now", "{}")]


async def collect(answer: AsyncStream, texts: list[str]) -> None:
    async for delta in answer:
        texts[delta.choice] += delta.text


def named(calls: tuple[ToolCall, ...]) -> list[tuple[str, str]]:
    return [(call.name, call.arguments) for call in calls]


async def test_calls_are_told_as_over_http(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda _: Script(tokens=tuple(SAID.encode()))
    async with AsyncClient(edge.grpc) as client:
        answer = client.generate("weather?", tools=BOTH)
        deltas = [delta async for delta in answer]
        again = client.attach(answer.request_id)
        text = await again.text()
    assert "".join(delta.text for delta in deltas) == text == "Well. "
    assert sum(len(delta.tokens) for delta in deltas) == len(SAID.encode()), "every token is told of"
    assert answer.end is not None
    assert answer.end.reason == "tool_calls"
    assert named(answer.tool_calls) == CALLED
    assert again.tool_calls == answer.tool_calls, "with the same ids for every reader"
    body = {"messages": [{"role": "user", "content": "weather?"}], "tools": TOOLS}
    told = (await edge.http.post(CHAT, json=body)).json()["choices"][0]["message"]["tool_calls"]
    assert [(call["function"]["name"], call["function"]["arguments"]) for call in told] == CALLED
    grpc, http = cell.requests
    assert (grpc.sampling.grammar, grpc.prompt) == (http.sampling.grammar, http.prompt)


CHOICES: list[tuple[dict[str, Any], bytes]] = [
    ({}, grammar.tools(OFFERED, text=True, calls=8)),
    ({"tool_choice": "auto", "parallel_tool_calls": False}, grammar.tools(OFFERED, text=True, calls=1)),
    ({"tool_choice": "required"}, grammar.tools(OFFERED, text=False, calls=8)),
    ({"tool_choice": NOW_TOOL}, grammar.tools(OFFERED[1:], text=False, calls=1)),
    ({"tool_choice": "none"}, b""),
    ({"json_schema": WEATHER}, grammar.tools(OFFERED, text=WEATHER, calls=8)),
]


@pytest.mark.parametrize(("options", "rules"), CHOICES, ids=[str(list(options)) for options, _ in CHOICES])
async def test_what_may_be_called(edge: Edge, cell: StandIn, options: dict[str, Any], rules: bytes) -> None:
    async with AsyncClient(edge.grpc) as client:
        await client.generate("weather?", tools=BOTH, **options).text()
    assert cell.requests[-1].sampling.grammar == rules


async def test_a_conversation_goes_on_behind_calls(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda _: Script(tokens=tuple(f"{ONE}\n{TWO}".encode()))

    def use() -> None:
        with Client(edge.grpc) as client:
            answer = client.generate("weather?", tools=BOTH)
            assert answer.text() == ""
            turns = [Message("user", "weather?"), Message("assistant", tool_calls=answer.tool_calls)]
            turns += [Message("tool", f"{n} degrees", tool_call_id=call.id) for n, call in enumerate(answer.tool_calls)]
            client.generate(turns, tools=BOTH).text()

    await asyncio.to_thread(use)
    pieces = family("profile-tiny").pieces
    prompt = b"".join([pieces[token] for token in cell.requests[-1].prompt.tokens]).decode()
    assert f"assistant\n{ONE}\n{TWO}" in prompt
    assert all(f"<tool_response>\n{n} degrees\n</tool_response>" in prompt for n in (0, 1)), prompt


async def test_without_tools_a_grammar_of_calls_gives_text(edge: Edge, cell: StandIn) -> None:
    """As clients that know of no tools have it."""
    cell.script = lambda _: Script(tokens=tuple(ONE.encode()))
    asked = gateway_pb2.GenerateRequest(
        messages=[gateway_pb2.Message(role="user", content=[gateway_pb2.ContentPart(text="weather?")])]
    )
    asked.sampling.grammar = grammar.tools(OFFERED, text=False, calls=1)
    async with AsyncClient(edge.grpc) as client:
        events = [event async for event in client._stub().Generate(asked)]
    assert "".join(event.delta.text for event in events) == ONE
    assert not any(event.delta.tool_calls for event in events)


def message(role: str, calls: tuple[ToolCall, ...] = (), answers: str = "") -> list[Message]:
    return [Message("user", "a"), Message(role, "b", calls, answers), Message("user", "c")]


REFUSED: list[tuple[str, Mapping[str, Any], Any]] = [
    ("tools", {"tools": [NOW_TOOL] * 129}, "a"),
    ("tools[0]", {"tools": [Tool("a b")]}, "a"),
    ("tools[1].parameters", {"tools": [NOW_TOOL, Tool("f", parameters={"type": "wat"})]}, "a"),
    ("tool_choice", {"tools": BOTH, "tool_choice": "maybe"}, "a"),
    ("tool_choice", {"tool_choice": "required"}, "a"),
    ("tool_choice.name", {"tools": BOTH, "tool_choice": Tool("later")}, "a"),
    ("sampling.grammar", {"tools": BOTH, "regex": "a"}, "a"),
    ("messages[1].tool_call_id", {}, message("tool", answers="x")),
    ("messages[1].tool_calls", {}, message("user", (ToolCall("c", "now", "{}"),))),
    ("messages[1].tool_calls[0].arguments", {}, message("assistant", (ToolCall("c", "now", "[1]"),))),
    ("n", {"n": 9}, "a"),
]


@pytest.mark.parametrize(("field", "options", "turns"), REFUSED, ids=[field for field, _, _ in REFUSED])
async def test_refused_by_its_name(
    edge: Edge, cell: StandIn, field: str, options: Mapping[str, Any], turns: Any
) -> None:
    async with AsyncClient(edge.grpc) as client:
        with pytest.raises(InvalidInput) as caught:
            await client.generate(turns, **options).text()
    assert caught.value.field == field
    assert cell.requests == []


# --- several answers ---


def numbered(said: Callable[[int], str], wait_s: float) -> Callable[[Request], Script]:
    """What each answer of a question says follows from its number."""
    first: dict[str, int] = {}

    def script(request: Request) -> Script:
        index = int(request.id[-2:], 16) - first.setdefault(request.id[:-2], int(request.id[-2:], 16))
        return Script(tokens=tuple(said(index).encode()), wait_s=wait_s)

    return script


async def test_several_answers(edge: Edge, cell: StandIn) -> None:
    cell.script = numbered(lambda index: "ab" * (index + 1), 0.01)
    async with AsyncClient(edge.grpc) as client:
        answer = client.generate("hi", n=3)
        assert await answer.texts() == ["ab", "abab", "ababab"]
        alone = client.generate("hi")
        await alone.text()
    assert answer.request_ids == tuple(choice_id(answer.request_id, index) for index in range(3))
    assert [end and end.reason for end in answer.ends] == ["stop"] * 3
    assert answer.usage.completion_tokens == 2 + 4 + 6
    assert answer.usage.prompt_tokens == alone.usage.prompt_tokens, "the question counts once"
    assert cell.requests[0].choices == 3


async def test_several_answers_with_calls(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda _: Script(tokens=tuple(SAID.encode()))
    async with AsyncClient(edge.grpc) as client:
        answer = client.generate("weather?", n=2, tools=BOTH)
        assert await answer.texts() == ["Well. "] * 2
    assert [named(calls) for calls in answer.all_tool_calls] == [CALLED] * 2
    assert len({call.id for calls in answer.all_tool_calls for call in calls}) == 4


@pytest.mark.parametrize("by", ["leaving", "its id"])
async def test_cancelled_together(edge: Edge, cell: StandIn, by: str) -> None:
    cell.script = lambda _: Script(tokens=tuple(b"x" * 1000), wait_s=0.02)
    async with AsyncClient(edge.grpc) as client:
        answer = client.generate("hi", n=3)
        async for _ in answer:
            if len(cell.running) == 3 and by == "its id":
                await answer.cancel()
            elif len(cell.running) == 3:
                await answer.close()
                break
        await until(lambda: not cell.running)
        if by == "its id":
            assert [end and end.reason for end in answer.ends] == ["cancelled"] * 3
    assert len({line for line in cell.heard if line.startswith("cancel")}) == 3


async def test_one_that_fails_is_told_behind_the_others(edge: Edge, cell: StandIn) -> None:
    bad = End("error", Failure("stage_error", "no"))
    cell.script = lambda request: Script(b"z", bad) if request.choices else Script(b"zz", wait_s=0.05)
    texts = ["", ""]
    async with AsyncClient(edge.grpc) as client:
        answer = client.generate("hi", n=2)
        with pytest.raises(StageError):
            await collect(answer, texts)
    assert texts == ["z", "zz"]
    assert [end and end.reason for end in answer.ends] == ["error", "stop"]


async def test_a_key_names_all_of_them(edge: Edge, cell: StandIn) -> None:
    async with AsyncClient(edge.grpc) as client:
        first, again = [client.generate("hi", n=2, idempotency_key="several, over gRPC") for _ in range(2)]
        assert await first.texts() == await again.texts()
        assert first.request_ids == again.request_ids
        with pytest.raises(Conflict):
            await client.generate("hi", n=1, idempotency_key="several, over gRPC").text()
    assert len(cell.requests) == 2


async def test_a_broken_stream_of_several_goes_on_at_another_gateway(edge: Edge, edges: Edges, cell: StandIn) -> None:
    """One has ended by then, the others stand in the middle of their calls."""
    cell.script = numbered(lambda index: "so " * 20 * index + SAID, 0.002)
    other, cable = await edges.start("gw-b"), Cable(edge.grpc)
    tokens: list[list[int]] = [[], [], []]
    texts = [""] * 3
    async with AsyncClient([await cable.plug(), other.grpc]) as client:
        answer = client.generate("hi", n=3, tools=BOTH, keep_on_disconnect=True)
        async for delta in answer:
            assert delta.index == len(tokens[delta.choice]), "no gap, no duplicate"
            tokens[delta.choice] += delta.tokens
            texts[delta.choice] += delta.text
            if answer.end is not None and not cable.is_cut:
                cable.cut()
    assert cable.is_cut
    assert [bytes(one).decode() for one in tokens] == ["so " * 20 * index + SAID for index in range(3)]
    assert texts == ["so " * 20 * index + "Well. " for index in range(3)]
    assert [named(calls) for calls in answer.all_tool_calls] == [CALLED] * 3
