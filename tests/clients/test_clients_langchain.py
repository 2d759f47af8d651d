"""LangChain's OpenAI package: streams, tools bound to a model, structured output, media, batches, embeddings."""

import base64
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from tests.clients.conftest import ASSETS, Served

langchain_openai: Any = pytest.importorskip("langchain_openai", reason="not installed here: make test-clients")
messages: Any = pytest.importorskip("langchain_core.messages", reason="not installed here: make test-clients")

pytestmark = pytest.mark.timeout(300)
PARIS = "What is the capital of France?"


class City(BaseModel):
    """A city and where it is."""

    model_config = ConfigDict(extra="forbid")  # an open schema lets a weak model go on for long
    name: str = Field(max_length=20)
    country: str = Field(max_length=20)


class Temperature(BaseModel):
    """The temperature in a city."""

    model_config = ConfigDict(extra="forbid")  # an open schema lets a weak model go on for long
    city: str = Field(max_length=20)


@pytest.fixture
def chat(served: Served) -> Any:
    return langchain_openai.ChatOpenAI(
        model=served.model,
        base_url=served.base_url,
        api_key=served.key,
        temperature=0,
        max_tokens=60,
        max_retries=0,
        stream_usage=True,
    )


def test_it_streams_what_it_says_whole(chat: Any) -> None:
    whole = chat.invoke(PARIS)
    chunks = list(chat.stream(PARIS))
    together = chunks[0]
    for chunk in chunks[1:]:
        together += chunk
    assert "Paris" in whole.content
    assert len(chunks) > 3
    assert together.content == whole.content
    assert together.response_metadata["finish_reason"] == "stop"
    told = [message.usage_metadata for message in (whole, together)]
    assert told[0]["total_tokens"] == told[0]["input_tokens"] + told[0]["output_tokens"]
    assert [told[0][name] for name in ("input_tokens", "output_tokens")] == [
        told[1][name] for name in ("input_tokens", "output_tokens")
    ]


def test_a_bound_tool_is_called_and_answered(chat: Any) -> None:
    bound = chat.bind_tools([Temperature], tool_choice="any", parallel_tool_calls=False)
    question = messages.HumanMessage("How warm is it in Oslo?")
    made = bound.invoke([question])
    streamed = None
    for chunk in bound.stream([question]):
        streamed = chunk if streamed is None else streamed + chunk
    (call,) = made.tool_calls
    assert streamed is not None
    assert call["name"] == "Temperature"
    assert list(call["args"]) == ["city"]
    assert [(one["name"], one["args"]) for one in streamed.tool_calls] == [(call["name"], call["args"])]
    answer = messages.ToolMessage("3 degrees", tool_call_id=call["id"])
    after = chat.bind_tools([Temperature], tool_choice="none").invoke([question, made, answer])
    assert after.content
    assert not after.tool_calls


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(chat: Any, method: str) -> None:
    shaped = chat.with_structured_output(City, method=method).invoke("Which city has the Eiffel tower?")
    assert isinstance(shaped, City)


def test_structured_output_as_it_comes(chat: Any) -> None:
    """Objects that grow, of a plain JSON schema."""
    schema = City.model_json_schema()
    grown = list(chat.with_structured_output(schema, method="json_schema").stream("Which city has the Eiffel tower?"))
    assert len(grown) > 2
    assert set(grown[-1]) == {"name", "country"}
    City.model_validate(grown[-1])


def test_a_picture_in_its_own_form(chat: Any) -> None:
    data = base64.b64encode((ASSETS / "digit-7.png").read_bytes()).decode()
    picture = {"type": "image", "base64": data, "mime_type": "image/png"}
    text = {"type": "text", "text": "What digit is in the image?"}
    assert "seven" in chat.invoke([messages.HumanMessage([picture, text])]).content


def test_a_batch_of_calls(chat: Any) -> None:
    answers = chat.batch([PARIS] * 4, config={"max_concurrency": 4})
    assert len({answer.content for answer in answers}) == 1


def test_the_responses_api(chat: Any) -> None:
    other = chat.model_copy(update={"use_responses_api": True})
    together = None
    for chunk in other.stream(PARIS):
        together = chunk if together is None else together + chunk
    assert together is not None
    assert "Paris" in together.text
    assert together.usage_metadata["output_tokens"] > 0
    shaped = other.with_structured_output(City, method="json_schema").invoke("Which city has the Eiffel tower?")
    assert isinstance(shaped, City)


def test_embeddings(served: Served) -> None:
    """Without its own counting of tokens, which is that of OpenAI's models."""
    embedder = langchain_openai.OpenAIEmbeddings(
        model="minilm", base_url=served.base_url, api_key=served.key, check_embedding_ctx_length=False
    )
    cat, shares = embedder.embed_documents(["A cat sits on the mat.", "Shares lost value on Monday."])
    kitten = embedder.embed_query("A kitten lies on a rug.")

    def alike(left: list[float], right: list[float]) -> float:
        return sum(a * b for a, b in zip(left, right, strict=True))

    assert alike(cat, kitten) > 2 * abs(alike(shares, kitten))
