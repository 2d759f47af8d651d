"""/v1/completions at a real gateway: prompts of every kind, streamed and whole, by the official client."""

import json
from typing import Any

import pytest
from openai import AsyncOpenAI

from headrace.core.types import End, Failure, TokenLogprobs
from headrace.engines import grammar
from tests.gateway.conftest import Edge
from tests.gateway.standin import Script, StandIn

pytestmark = pytest.mark.timeout(30)
PATH = "/v1/completions"


def client(edge: Edge) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{edge.url}/v1", api_key="any", max_retries=0)


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ("abc", [(97, 98, 99)]),
        ([97, 98], [(97, 98)]),
        (["a", "bc"], [(97,), (98, 99)]),
        ([[97], [98, 99]], [(97,), (98, 99)]),
        ("<|im_start|>", [(256,)]),
    ],
)
async def test_prompts_are_taken_as_they_are(edge: Edge, cell: StandIn, prompt: Any, tokens: Any) -> None:
    reply = await edge.http.post(PATH, json={"prompt": prompt})
    body = reply.json()
    assert reply.status_code == 200, body
    assert (body["object"], body["id"]) == ("text_completion", f"cmpl-{reply.headers['x-request-id']}")
    assert [request.prompt.tokens for request in cell.requests] == tokens
    assert [(one["index"], one["text"], one["finish_reason"]) for one in body["choices"]] == [
        (index, "hello", "stop") for index in range(len(tokens))
    ]
    assert body["usage"]["completion_tokens"] == 5 * len(tokens)
    assert body["usage"]["prompt_tokens"] == sum(map(len, tokens))
    assert cell.requests[0].sampling.max_tokens == 16
    assert cell.requests[0].question == (prompt if isinstance(prompt, str) else "a" if prompt[0] == "a" else "")


async def test_the_official_client_streams(edge: Edge, cell: StandIn) -> None:
    async with client(edge) as openai:
        stream = await openai.completions.create(
            model="profile-tiny",
            prompt=["a", "b"],
            n=2,
            max_tokens=9,
            temperature=1.0,
            stream=True,
            stream_options={"include_usage": True},
        )
        texts, reasons, usage = {0: "", 1: "", 2: "", 3: ""}, [], None
        async for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                texts[choice.index] += choice.text
                reasons += [choice.finish_reason] if choice.finish_reason else []
    assert (set(texts.values()), reasons) == ({"hello"}, ["stop"] * 4)
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (2, 20), "two prompts, each answered twice"
    assert [request.prompt.tokens for request in cell.requests] == [(97,), (97,), (98,), (98,)]
    assert len({request.sampling.seed for request in cell.requests}) == 4


@pytest.mark.parametrize("stop", [None, "lo"])
async def test_logprobs_in_the_old_form(edge: Edge, cell: StandIn, stop: str | None) -> None:
    text = "hélo".encode()
    told = {index: TokenLogprobs(-index / 4, ((104, -0.5), (257, -1.0))) for index in range(len(text))}
    cell.script = lambda _: Script(text, logprobs=told)
    asked = {"prompt": "a", "logprobs": 2, "stop": stop}
    whole = (await edge.http.post(PATH, json=asked)).json()["choices"][0]["logprobs"]
    count = len(text) if stop is None else 3
    assert len(whole["tokens"]) == count
    assert whole["token_logprobs"] == [-index / 4 for index in range(count)]
    assert whole["top_logprobs"][0] == {"h": -0.5, "<|im_end|>": -1.0}
    assert whole["text_offset"][0] == 0
    assert whole["text_offset"] == sorted(whole["text_offset"])
    reply = await edge.http.post(PATH, json={**asked, "stream": True})
    chunks = [json.loads(line[6:]) for line in reply.text.split("\n\n") if line.startswith("data: {")]
    pieces = [one for chunk in chunks for one in (chunk["choices"][0]["logprobs"] or {"tokens": []})["tokens"]]
    assert pieces == whole["tokens"]


async def test_stop_grammar_and_length(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda _: Script(b"one. two", End("length"))
    asked = {"prompt": "a", "stop": ["zz", " two", "."], "guided_regex": "[a-z. ]+"}
    choice = (await edge.http.post(PATH, json=asked)).json()["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("one", "length")
    assert cell.requests[-1].sampling.grammar == grammar.regex("[a-z. ]+")


async def test_errors_in_the_stream(edge: Edge, cell: StandIn) -> None:
    cell.script = lambda _: Script(b"h", End("error", Failure("stage_error", "no")))
    reply = await edge.http.post(PATH, json={"prompt": "a", "stream": True})
    lines = [line for line in reply.text.split("\n\n") if line]
    assert json.loads(lines[-2][6:])["error"]["code"] == "stage_error"
    assert '"finish_reason":"error"' in lines[-3]
    assert lines[-1] == "data: [DONE]"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": [1, 999]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": ["a"] * 9}, "prompt"),
        ({"prompt": ["a"] * 3, "n": 3}, "prompt"),
        ({"prompt": "a", "n": 0}, "n"),
        ({"prompt": "a", "echo": True}, "echo"),
        ({"prompt": "a", "best_of": 3}, "best_of"),
        ({"prompt": "a", "suffix": "z"}, "suffix"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "max_tokens": 8192}, "max_tokens"),
        ({"prompt": "a" * 9000}, "prompt"),
        ({"prompt": "a", "logprobs": 21}, "logprobs"),
        ({"prompt": "a", "stream_options": {}}, "stream_options"),
        ({"prompt": "a", "messages": []}, "messages"),
    ],
)
async def test_refused_by_its_name(edge: Edge, cell: StandIn, body: dict[str, Any], field: str) -> None:
    reply = await edge.http.post(PATH, json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, field), reply.text
    assert cell.requests == []
