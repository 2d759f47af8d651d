"""OpenAI's own client, in its newest version: every endpoint that it has and that Headrace answers."""

import base64
import json
import time
from typing import Any

import numpy as np
import openai
import pytest
from pydantic import BaseModel, Field

from tests.clients.conftest import ASSETS, LIMITED_REQUESTS_PER_MIN, Served

pytestmark = pytest.mark.timeout(300)
PARIS: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "temperature", "description": "Now.", "parameters": CITY, "strict": True}}
]
FLAT_TOOLS: list[Any] = [{"type": "function", "name": "temperature", "parameters": CITY, "strict": True}]


class City(BaseModel):
    name: str = Field(max_length=20)
    country: str = Field(max_length=20)


@pytest.fixture
def client(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=served.base_url, api_key=served.key, max_retries=0, timeout=200)


def test_chat_streams_what_it_says_whole(client: openai.OpenAI, served: Served) -> None:
    asked: dict[str, Any] = {"model": served.model, "messages": PARIS, "temperature": 0, "max_tokens": 30}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert "Paris" in (whole.choices[0].message.content or "")
    assert "".join(choice.delta.content or "" for choice in choices) == whole.choices[0].message.content
    assert [choice.delta.role for choice in choices if choice.delta.role] == ["assistant"]
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["stop"]
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage)
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


def test_a_picture_and_a_sound(client: openai.OpenAI, served: Served) -> None:
    picture = base64.b64encode((ASSETS / "digit-7.png").read_bytes()).decode()
    sound = base64.b64encode((ASSETS / "seven-two-nine.flac").read_bytes()).decode()
    parts: dict[str, Any] = {
        "What digit is in the image?": {
            "type": "image_url",
            "image_url": {"url": f"data:image/png;base64,{picture}", "detail": "low"},
        },
        "Which digits are spoken?": {"type": "input_audio", "input_audio": {"data": sound, "format": "flac"}},
    }
    said = {
        text: client.chat.completions.create(
            model=served.model,
            messages=[{"role": "user", "content": [part, {"type": "text", "text": text}]}],
            temperature=0,
        )
        for text, part in parts.items()
    }
    seen, heard = said.values()
    assert "seven" in (seen.choices[0].message.content or "")
    assert heard.choices[0].message.content == "The spoken digits are seven, two, nine."
    assert heard.usage is not None
    assert heard.usage.prompt_tokens_details is not None
    assert heard.usage.prompt_tokens_details.audio_tokens == 12


def test_a_tool_is_called_in_pieces_and_answered(client: openai.OpenAI, served: Served) -> None:
    messages: list[Any] = [{"role": "user", "content": "How warm is it in Oslo?"}]
    with client.chat.completions.stream(
        model=served.model, messages=messages, tools=TOOLS, tool_choice="required", parallel_tool_calls=False
    ) as stream:
        kinds = [event.type for event in stream]
        made = stream.get_final_completion().choices[0]
    (call,) = made.message.tool_calls or []
    assert "tool_calls.function.arguments.delta" in kinds
    assert kinds.count("tool_calls.function.arguments.done") == 1
    assert (made.finish_reason, call.function.name) == ("tool_calls", "temperature")
    assert list(json.loads(call.function.arguments)) == ["city"]
    messages += [made.message.model_dump(exclude={"parsed"})]
    messages += [{"role": "tool", "tool_call_id": call.id, "content": "3 degrees"}]
    after = client.chat.completions.create(model=served.model, messages=messages, tools=TOOLS, max_tokens=40)
    assert after.usage is not None
    assert after.usage.prompt_tokens > 60, "the call and its answer are part of the prompt"


def test_a_schema_is_kept(client: openai.OpenAI, served: Served) -> None:
    parsed = client.chat.completions.parse(
        model=served.model,
        messages=[{"role": "user", "content": "Which city has the Eiffel tower?"}],
        response_format=City,
        max_tokens=80,
    )
    assert isinstance(parsed.choices[0].message.parsed, City)


def test_responses_stream_in_order(client: openai.OpenAI, served: Served) -> None:
    with client.responses.stream(model=served.model, input="What is the capital of France?") as stream:
        events = list(stream)
        response = stream.get_final_response()
    numbers = [event.sequence_number for event in events]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert numbers == list(range(len(events)))
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    assert "".join(deltas) == response.output_text
    assert "Paris" in response.output_text
    assert response.usage is not None
    assert response.usage.output_tokens > 0


def test_responses_go_on_after_a_call(client: openai.OpenAI, served: Served) -> None:
    question: list[Any] = [{"role": "user", "content": "How warm is it in Oslo?"}]
    made = client.responses.create(
        model=served.model, input=question, tools=FLAT_TOOLS, tool_choice="required", parallel_tool_calls=False
    )
    (call, *_) = [item for item in made.output if item.type == "function_call"]
    question += [item.model_dump() for item in made.output]
    answers: list[Any] = [
        {"type": "function_call_output", "call_id": item.call_id, "output": "3 degrees"}
        for item in made.output
        if item.type == "function_call"
    ]
    after = client.responses.create(
        model=served.model, input=question + answers, tools=FLAT_TOOLS, tool_choice="none", max_output_tokens=40
    )
    assert list(json.loads(call.arguments)) == ["city"]
    assert after.output_text
    shaped = client.responses.parse(
        model=served.model, input="Which city has the Eiffel tower?", text_format=City, max_output_tokens=80
    )
    assert isinstance(shaped.output_parsed, City)


def test_completions_of_several_prompts(client: openai.OpenAI, served: Served) -> None:
    prompts = ["The capital of France is", "Two and two make"]
    made = client.completions.create(model=served.model, prompt=prompts, max_tokens=4, logprobs=2, temperature=0)
    streamed = ["", ""]
    for chunk in client.completions.create(
        model=served.model, prompt=prompts, max_tokens=4, temperature=0, stream=True
    ):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    assert [choice.text for choice in made.choices] == streamed
    assert "Paris" in made.choices[0].text
    assert made.choices[0].logprobs is not None
    assert [len(top) for top in made.choices[0].logprobs.top_logprobs or []] == [2] * 4


def test_embeddings_that_are_alike(client: openai.OpenAI) -> None:
    """The client asks for base64 and decodes it; with floats it is told the same numbers."""
    texts = ["A cat sits on the mat.", "A kitten lies on a rug.", "Shares lost value on Monday."]
    told = client.embeddings.create(model="minilm", input=texts)
    plain = client.embeddings.create(model="minilm", input=texts, encoding_format="float")
    cat, kitten, shares = vectors = [np.array(one.embedding) for one in told.data]
    assert cat @ kitten > 2 * abs(cat @ shares)
    assert [np.linalg.norm(vector) for vector in vectors] == pytest.approx([1.0] * 3, abs=1e-5)
    assert np.array([one.embedding for one in plain.data]) == pytest.approx(np.array(vectors), abs=1e-6)
    assert told.usage.prompt_tokens == told.usage.total_tokens > 15


def test_a_batch_from_file_to_file(client: openai.OpenAI, served: Served) -> None:
    body = {"model": served.model, "messages": PARIS, "temperature": 0, "max_tokens": 30}
    bodies = {"right": body, "wrong": body | {"messages": []}}
    lines = [
        {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
        for name, body in bodies.items()
    ]
    data = "\n".join(map(json.dumps, lines)).encode()
    file = client.files.create(file=("in.jsonl", data), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    while batch.status in ("validating", "in_progress", "finalizing"):
        time.sleep(0.3)
        batch = client.batches.retrieve(batch.id)
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 1)
    right = json.loads(client.files.content(batch.output_file_id or "").text)
    wrong = json.loads(client.files.content(batch.error_file_id or "").text)
    assert "Paris" in right["response"]["body"]["choices"][0]["message"]["content"]
    assert (wrong["custom_id"], wrong["response"]["status_code"]) == ("wrong", 400)
    assert batch.id in [one.id for one in client.batches.list(limit=100)]
    assert client.files.delete(file.id).deleted


def test_errors_are_its_own_kinds(client: openai.OpenAI, served: Served) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="no-such-model", messages=PARIS)
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model=served.model, messages=PARIS, presence_penalty=1.5)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="nobody").models.list()
    assert (unknown.value.code, wrong.value.param) == ("model_not_found", "presence_penalty")
    assert served.model in [model.id for model in client.models.list()]


def test_it_waits_as_long_as_it_is_told(client: openai.OpenAI, served: Served) -> None:
    """429 with Retry-After: without retries a RateLimitError, with them an answer, not before that time is over."""
    limited = client.with_options(api_key=served.limited_key, max_retries=0)
    asked: dict[str, Any] = {"model": served.model, "messages": PARIS, "max_tokens": 1}

    def used_up() -> None:
        for _ in range(2 * LIMITED_REQUESTS_PER_MIN):
            limited.chat.completions.create(**asked)

    with pytest.raises(openai.RateLimitError) as refused:
        used_up()
    told_ms, since_s = float(refused.value.response.headers["retry-after-ms"]), time.monotonic()
    reply = limited.with_options(max_retries=2).chat.completions.with_raw_response.create(**asked)
    waited_ms = 1000 * (time.monotonic() - since_s)
    assert 0 < told_ms <= 60_000 / LIMITED_REQUESTS_PER_MIN
    assert int(refused.value.response.headers["retry-after"]) >= told_ms / 1000
    assert reply.retries_taken == 1, "once, not before its time"
    assert waited_ms >= told_ms - 100
    assert reply.headers["x-ratelimit-limit-requests"] == str(LIMITED_REQUESTS_PER_MIN)
