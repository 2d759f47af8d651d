"""The default model through real processes, asked by the official OpenAI client and by the SDK."""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import openai
import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletionChunk

from headrace.cli.plan import MeshConfig
from headrace.cli.questions import asset, image
from headrace.cli.supervisor import Mesh
from headrace.client import AsyncClient
from headrace.engines.families import family
from tests.e2e.leaks import assert_free

# The first start on a machine also builds the model's graph.
pytestmark = [pytest.mark.model, pytest.mark.timeout(180)]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    config = MeshConfig(data_dir=tmp_path_factory.mktemp("model"), cores=len(os.sched_getaffinity(0)))
    async with Mesh(config) as mesh:
        yield mesh


@pytest_asyncio.fixture(loop_scope="session")
async def model_mesh(started: Mesh) -> AsyncIterator[Mesh]:
    yield started
    await assert_free(started, 5.0)


def picture_part(name: str) -> dict[str, object]:
    data = base64.b64encode(image(name)).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def sound_part(file: str) -> dict[str, object]:
    data = base64.b64encode(asset(file)).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "flac"}}


def video_part(file: str) -> dict[str, object]:
    data = base64.b64encode(asset(file)).decode()
    return {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{data}"}}


async def ask(mesh: Mesh, *parts: object, max_tokens: int = 40) -> list[ChatCompletionChunk]:
    client = openai.AsyncOpenAI(base_url=f"{mesh.http_url}/v1", api_key="any", max_retries=0)
    content: list[Any] = [part if isinstance(part, dict) else {"type": "text", "text": part} for part in parts]
    async with client:
        stream = await client.chat.completions.create(
            model="smollm2-135m",
            messages=[{"role": "user", "content": content}],
            temperature=0,
            max_tokens=max_tokens,
            stream=True,
            stream_options={"include_usage": True},
        )
        return [chunk async for chunk in stream]


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def places(text: str, *words: str) -> list[int]:
    return [text.lower().find(word) for word in words]


async def test_text(model_mesh: Mesh) -> None:
    chunks = await ask(model_mesh, "What is the capital of France?")
    assert "Paris" in text_of(chunks)
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == ["stop"]


async def test_one_image(model_mesh: Mesh) -> None:
    chunks = await ask(model_mesh, picture_part("digit-7"), "What digit is in the image?")
    text = text_of(chunks)
    assert "seven" in text.lower() or "7" in text, text
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert (usage.prompt_tokens_details.model_dump()["image_tokens"], chunks[-1].choices) == (6, [])


async def test_several_images_in_order(model_mesh: Mesh) -> None:
    parts = [picture_part(f"digit-{digit}") for digit in (3, 7, 0)]
    text = text_of(await ask(model_mesh, *parts, "What digits are in the images, in order?"))
    found = places(text, "three", "seven", "zero")
    assert -1 not in found, text
    assert found == sorted(found), text


async def test_spoken_digits(model_mesh: Mesh) -> None:
    chunks = await ask(model_mesh, sound_part("seven-two-nine.flac"), "Which digits are spoken?")
    assert text_of(chunks) == "The spoken digits are seven, two, nine."
    usage = chunks[-1].usage
    assert usage is not None
    details = usage.prompt_tokens_details
    assert details is not None
    assert (details.audio_tokens, details.model_dump()["image_tokens"]) == (12, 0)


async def test_a_spoken_sentence_and_an_image(model_mesh: Mesh) -> None:
    sound = sound_part("turn-on-the-light-in-the-kitchen.flac")
    alone = text_of(await ask(model_mesh, sound, "Transcribe the audio."))
    assert alone == "Turn on the light in the kitchen."
    seen = text_of(await ask(model_mesh, picture_part("digit-7"), sound, "What digit is in the image?"))
    assert "seven" in seen, seen


async def test_a_video(model_mesh: Mesh) -> None:
    chunks = await ask(model_mesh, video_part("digits-4-9-2.mp4"), "What digits are in the video, in order?")
    assert text_of(chunks) == "The digits are four, nine, two."


async def test_all_three_kinds_by_the_sdk(model_mesh: Mesh) -> None:
    async with AsyncClient(model_mesh.grpc_addr) as client:
        stream = client.generate(
            "What is said?",
            images=[image("digit-3")],
            audio=[asset("seven-two-nine.flac")],
            videos=[asset("digits-4-9-2.mp4")],
            max_tokens=30,
        )
        await stream.text()
        usage = stream.usage
    assert (usage.image_tokens, usage.audio_tokens, usage.video_tokens) == (6, 12, 3 * 9)


async def test_the_sdk_shows_where_the_time_went(model_mesh: Mesh) -> None:
    async with AsyncClient(model_mesh.grpc_addr, trace=True) as client:
        stream = client.generate("What color is it?", images=[image("red-circle-top-left")], max_tokens=20)
        assert "red" in (await stream.text()).lower()
        stages = {span.stage for span in stream.timeline} - {"wait"}  # a busy machine may make a picture wait
        assert stages == {"gateway", "admit", "media", "preprocess", "encode", "queue", "transfer", "prefill", "decode"}
        assert stream.trace_id


async def test_a_batch(model_mesh: Mesh) -> None:
    """Uploaded, answered in its own time and fetched with the official client; a line's mistake is that line's."""
    asked = {"Paris": "What is the capital of France?", "4": "What is 2 + 2?"}
    lines: list[dict[str, Any]] = [
        {
            "custom_id": word,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 30},
        }
        for word, text in asked.items()
    ]
    lines.append(lines[0] | {"custom_id": "wrong", "body": {"messages": []}})
    client = openai.AsyncOpenAI(base_url=f"{model_mesh.http_url}/v1", api_key="any", max_retries=0)
    async with client, asyncio.timeout(90):
        data = "\n".join(json.dumps(line) for line in lines).encode()
        file = await client.files.create(file=("questions.jsonl", data), purpose="batch")
        batch = await client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        while batch.status in ("validating", "in_progress", "finalizing"):
            await asyncio.sleep(0.2)
            batch = await client.batches.retrieve(batch.id)
        assert (batch.status, batch.output_file_id is None) == ("completed", False)
        answers = (await client.files.content(batch.output_file_id or "")).text.splitlines()
        errors = (await client.files.content(batch.error_file_id or "")).text.splitlines()
    for answer in map(json.loads, answers):
        assert answer["custom_id"] in answer["response"]["body"]["choices"][0]["message"]["content"]
    assert len(answers) == 2
    assert [json.loads(error)["response"]["status_code"] for error in errors] == [400]


async def test_embeddings_of_its_towers(model_mesh: Mesh) -> None:
    """The mean of the rows that prefill would get, at length 1; like pictures are alike."""
    names = ("digit-3", "digit-7")
    kind = family("smollm2-135m").modality("image")
    tower = kind.load(1)
    rows = [tower.encode([tower.preprocess(data, kind.probe(data))])[0].mean(0) for data in map(image, names)]
    client = openai.AsyncOpenAI(base_url=f"{model_mesh.http_url}/v1", api_key="any", max_retries=0)
    parts: Any = [*map(picture_part, names), sound_part("seven-two-nine.flac")]
    async with client:
        found = await client.embeddings.create(model="smollm2-135m", input=parts)
        text = await client.embeddings.create(model="minilm", input="a digit")
    vectors = [np.array(one.embedding) for one in found.data]
    for vector, row in zip(vectors, rows, strict=False):
        assert vector == pytest.approx(row / np.linalg.norm(row), abs=1e-4)
    assert [len(vector) for vector in vectors] == [576] * 3
    assert found.usage.prompt_tokens > 0
    assert len(text.data[0].embedding) == 384
