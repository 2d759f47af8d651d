"""LiteLLM, as a library: what it makes of answers, errors and a refusal that another deployment takes over."""

import asyncio
import json
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from tests.clients.conftest import Served

litellm: Any = pytest.importorskip("litellm", reason="not installed here: make test-clients")

pytestmark = pytest.mark.timeout(300)
PARIS = [{"role": "user", "content": "What is the capital of France?"}]


class City(BaseModel):
    model_config = ConfigDict(extra="forbid")  # an open schema lets a weak model go on for long
    name: str = Field(max_length=20)
    country: str = Field(max_length=20)


def door(served: Served, provider: str = "openai", model: str = "") -> dict[str, Any]:
    return {
        "model": f"{provider}/{model or served.model}",
        "api_base": served.base_url,
        "api_key": served.key,
        "num_retries": 0,
        "max_retries": 0,
    }


def test_it_streams_what_it_says_whole(served: Served) -> None:
    asked = {**door(served), "messages": PARIS, "temperature": 0, "max_tokens": 30}
    whole = litellm.completion(**asked)
    chunks = list(litellm.completion(**asked, stream=True, stream_options={"include_usage": True}))
    built = litellm.stream_chunk_builder(chunks, messages=PARIS)
    assert "Paris" in whole.choices[0].message.content
    assert built.choices[0].message.content == whole.choices[0].message.content
    assert built.choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    assert (built.usage.prompt_tokens, built.usage.completion_tokens) == (
        whole.usage.prompt_tokens,
        whole.usage.completion_tokens,
    )


def test_tools_and_a_pydantic_answer(served: Served) -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
    called = litellm.completion(
        **door(served),
        messages=[{"role": "user", "content": "How warm is it in Oslo?"}],
        tools=[{"type": "function", "function": {"name": "temperature", "parameters": parameters}}],
        tool_choice={"type": "function", "function": {"name": "temperature"}},
    )
    (call,) = called.choices[0].message.tool_calls
    shaped = litellm.completion(
        **door(served),
        messages=[{"role": "user", "content": "Which city has the Eiffel tower?"}],
        response_format=City,
        max_tokens=80,
    )
    assert call.function.name == "temperature"
    assert "city" in json.loads(call.function.arguments)
    City.model_validate_json(shaped.choices[0].message.content)


def test_as_a_vllm_server_with_its_own_fields(served: Served) -> None:
    """`hosted_vllm` is what users of vLLM have in their configuration; what it adds to the body is honoured."""
    made = litellm.completion(
        **door(served, "hosted_vllm"),
        messages=[{"role": "user", "content": "Is Paris a city or a river?"}],
        extra_body={"guided_choice": ["a city", "a river"], "priority": 1, "top_k": 5},
    )
    assert made.choices[0].message.content in ("a city", "a river")


def test_texts_responses_and_embeddings(served: Served) -> None:
    text = litellm.text_completion(
        **door(served, "text-completion-openai"), prompt="The capital of France is", max_tokens=4, temperature=0
    )
    events = list(litellm.responses(**door(served), input="What is the capital of France?", stream=True))
    vectors = litellm.embedding(**door(served, model="minilm"), input=["a cat", "a kitten"])
    assert "Paris" in text.choices[0].text
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    assert "Paris" in events[-1].response.output[0].content[0].text
    assert [len(one["embedding"]) for one in vectors.data] == [384, 384]


def test_several_at_once(served: Served) -> None:
    async def ask(n: int) -> str:
        messages = [{"role": "user", "content": f"Say the number {n}."}]
        made = await litellm.acompletion(**door(served), messages=messages, max_tokens=8)
        return str(made.choices[0].finish_reason)

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*map(ask, range(6)))

    assert set(asyncio.run(all_of_them())) <= {"stop", "length"}


def test_errors_are_its_own_kinds(served: Served) -> None:
    with pytest.raises(litellm.NotFoundError, match="no-such-model"):
        litellm.completion(**door(served, model="no-such-model"), messages=PARIS)
    with pytest.raises(litellm.BadRequestError, match="presence_penalty"):
        litellm.completion(**door(served), messages=PARIS, presence_penalty=1.5)
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(**{**door(served), "api_key": "nobody"}, messages=PARIS)


def test_a_router_goes_elsewhere_when_refused(served: Served) -> None:
    """A 429 is what makes its router fall back, here from a key whose day's tokens are used up to another one."""
    small = {**door(served), "api_key": served.spent_key}
    router = litellm.Router(
        model_list=[
            {"model_name": "small", "litellm_params": small, "model_info": {"id": "small"}},
            {"model_name": "big", "litellm_params": door(served), "model_info": {"id": "big"}},
        ],
        fallbacks=[{"small": ["big"]}],
        num_retries=0,
        disable_cooldowns=True,
    )
    litellm.completion(**small, messages=PARIS, max_tokens=1)
    with pytest.raises(litellm.RateLimitError):
        litellm.completion(**small, messages=PARIS, max_tokens=1)
    made = router.completion(model="small", messages=PARIS, max_tokens=20, temperature=0)
    assert "Paris" in made.choices[0].message.content
    assert made._hidden_params["model_id"] == "big"
