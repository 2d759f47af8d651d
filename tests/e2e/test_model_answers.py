"""The default model through real processes: JSON of random schemas, a worker killed in mid-answer, stop strings, calls,
both other endpoints; asked by the official client.
"""

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio
from pydantic import BaseModel

from headrace.cli.plan import MeshConfig
from headrace.cli.supervisor import Mesh
from headrace.client import AsyncClient, operator
from headrace.engines.families import family
from tests.e2e.leaks import assert_free
from tests.e2e.meshes import until_heard
from tests.e2e.schemas import keeps_to, random_schema

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]
MODEL = "smollm2-135m"
PROMPTS = (
    "Describe a small town.",
    "Erzähle von einer Reise nach Köln.",
    "What is on the table? 🍎",
    "List what a ship needs.",
    "Who won the game yesterday?",
)
STORY = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "minLength": 5, "maxLength": 30},
        "sentences": {"type": "array", "items": {"type": "string", "maxLength": 40}, "minItems": 3, "maxItems": 3},
        "año": {"type": "integer", "minimum": 1000, "maximum": 2999},
    },
    "required": ["title", "sentences", "año"],
    "additionalProperties": False,
}
TEMPERATURE = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {"type": "function", "function": {"name": "temperature", "description": "Now.", "parameters": TEMPERATURE}},
    {"type": "function", "function": {"name": "time"}},
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """Two decode workers: what the killed one held goes on at the other."""
    cores = len(os.sched_getaffinity(0))
    config = MeshConfig(data_dir=tmp_path_factory.mktemp("answers"), cores=cores, decode=2, encoders=1)
    async with Mesh(config) as mesh:
        yield mesh


@pytest_asyncio.fixture(loop_scope="session")
async def model_mesh(started: Mesh) -> AsyncIterator[Mesh]:
    yield started
    await assert_free(started, 5.0)


def client(mesh: Mesh) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{mesh.http_url}/v1", api_key="any", max_retries=0)


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


async def test_twenty_random_schemas_are_kept(model_mesh: Mesh) -> None:
    rng = random.Random(11)
    schemas = [random_schema(rng) for _ in range(20)]
    async with client(model_mesh) as asked:
        answers = await asyncio.gather(
            *(
                asked.chat.completions.create(
                    model=MODEL,
                    messages=user(PROMPTS[n % len(PROMPTS)]),
                    response_format={
                        "type": "json_schema",
                        "json_schema": {"name": "answer", "schema": schema, "strict": True},
                    },
                    temperature=0 if n % 2 else 1.0,
                    seed=n,
                    max_tokens=250,
                )
                for n, schema in enumerate(schemas)
            )
        )
    assert [answer.choices[0].finish_reason for answer in answers] == ["stop"] * 20
    texts = [answer.choices[0].message.content or "" for answer in answers]
    assert [text for text, schema in zip(texts, schemas, strict=True) if not keeps_to(json.loads(text), schema)] == []


async def tokens_of(mesh: Mesh, killed: bool) -> tuple[list[int], bool]:
    """And whether an attempt was lost on the way. Drawn with a seed: what is replayed, and what the grammar lets be
    drawn then, decides each token behind it."""
    tokens = list[int]()
    options: dict[str, Any] = {"json_schema": STORY, "temperature": 0.9, "seed": 4, "max_tokens": 200}
    async with AsyncClient(mesh.grpc_addr) as asked:
        stream = asked.generate("Tell a story of a sailor.", **options)
        async for delta in stream:
            tokens += delta.tokens
            if killed and len(tokens) > 12:
                killed = False
                mesh.kill(await _decoding(mesh))
        return tokens, "recover" in [stage.stage for stage in stream.timeline]


async def _decoding(mesh: Mesh) -> str:
    cell = await operator.cell_status(mesh.addresses.grpc["qm-0"])
    return max((one for one in cell.workers if one.worker.startswith("decode")), key=lambda one: one.slots_used).worker


async def test_a_killed_decode_worker_changes_no_token(model_mesh: Mesh) -> None:
    undisturbed, _ = await tokens_of(model_mesh, False)
    disturbed, recovered = await tokens_of(model_mesh, True)
    await until_heard(model_mesh)
    assert recovered
    assert disturbed == undisturbed
    kind = family(MODEL)
    said = json.loads(b"".join([kind.pieces[token] for token in undisturbed]))
    assert (len(said["sentences"]), 1000 <= said["año"] <= 2999) == (3, True)


@pytest.mark.parametrize("stream", [False, True])
async def test_stop_strings_across_tokens(model_mesh: Mesh, stream: bool) -> None:
    """Of the free answer: a few of them, one of which begins and ends in the middle of tokens."""
    asked: dict[str, Any] = {"model": MODEL, "messages": user("What is the capital of France?"), "max_tokens": 40}
    async with client(model_mesh) as openai_client:
        free = (await openai_client.chat.completions.create(**asked)).choices[0].message.content or ""
        at = free.index("Paris")
        stop = ["never said", free[at + 3 : at + 8], free[at + 1 : at + 4] + "?", "zz"]
        made: Any = await openai_client.chat.completions.create(**asked, stop=stop, stream=stream)
        if stream:
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in made])
        else:
            text = made.choices[0].message.content
    assert text == free[: at + 3]


async def test_calls_are_forced_and_go_on(model_mesh: Mesh) -> None:
    messages = user("How warm is it in Oslo?")
    async with client(model_mesh) as asked:
        forced = await asked.chat.completions.create(
            model=MODEL, messages=messages, tools=TOOLS, tool_choice="required", parallel_tool_calls=False
        )
        message = forced.choices[0].message
        assert (forced.choices[0].finish_reason, message.content) == ("tool_calls", None)
        (call,) = message.tool_calls or []
        assert call.type == "function"
        named = await asked.chat.completions.create(
            model=MODEL,
            messages=messages,
            tools=TOOLS,
            tool_choice={"type": "function", "function": {"name": "temperature"}},
        )
        (wanted,) = named.choices[0].message.tool_calls or []
        assert wanted.type == "function"
        assert wanted.function.name == "temperature"
        assert keeps_to(json.loads(wanted.function.arguments), TEMPERATURE), wanted.function.arguments
        messages += [named.choices[0].message.model_dump()]
        messages += [{"role": "tool", "tool_call_id": wanted.id, "content": "3 degrees"}]
        free = await asked.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS, max_tokens=60)
    assert free.choices[0].finish_reason in ("stop", "length", "tool_calls")


class City(BaseModel):
    country: str
    capital: bool


async def test_the_other_endpoints(model_mesh: Mesh) -> None:
    async with client(model_mesh) as asked:
        text = await asked.completions.create(model=MODEL, prompt="The capital of France is", max_tokens=4)
        assert "Paris" in text.choices[0].text
        async with asked.responses.stream(model=MODEL, input="What is the capital of France?") as stream:
            kinds = [event.type async for event in stream]
            response = await stream.get_final_response()
        assert "Paris" in response.output_text
        assert kinds[0] == "response.created"
        assert kinds[-1] == "response.completed"
        parsed = await asked.chat.completions.parse(
            model=MODEL, messages=user("Is Paris a capital? Of what?"), response_format=City, max_tokens=100, n=2
        )
        assert [isinstance(choice.message.parsed, City) for choice in parsed.choices] == [True, True]
