"""/v1/embeddings through real processes: the real text encoder, bounds, batches, an encoder that dies under way."""

import asyncio
import base64
from typing import Any

import grpc.aio
import httpx
import numpy as np
import openai
import pytest

from headrace.cli.supervisor import Mesh
from headrace.oip import open_inference_pb2 as pb
from headrace.oip.open_inference_pb2_grpc import GRPCInferenceServiceStub
from headrace.predictor import sentences
from tests.e2e.asking import picture
from tests.e2e.meshes import until_heard
from tests.e2e.otlp import Receiver
from tests.gateway.batching import begin, content, ended, jsonl

pytestmark = pytest.mark.timeout(90)
PATH = "/v1/embeddings"
TEXTS = ["A cat sits on the mat.", "A kitten is lying on a rug.", "Shares lost value on Monday."]


@pytest.fixture
def client(mesh: Mesh) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{mesh.http_url}/v1", api_key="any", max_retries=0)


async def post(mesh: Mesh, **body: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=mesh.http_url, timeout=30.0) as client:
        return await client.post(PATH, json=body)


async def test_texts_as_the_encoder_has_them(client: openai.AsyncOpenAI) -> None:
    """The SDK asks for base64 by itself; floats are the same numbers."""
    packed = await client.embeddings.create(model="minilm", input=TEXTS)
    plain = await client.embeddings.create(model="minilm", input=TEXTS, encoding_format="float", dimensions=384)
    found = np.array([one.embedding for one in packed.data])
    direct = sentences.Sentences().embed(sentences.read(TEXTS))
    assert [one.index for one in packed.data] == [0, 1, 2]
    assert found == pytest.approx(direct, abs=1e-5)
    assert np.array([one.embedding for one in plain.data]) == pytest.approx(found, abs=1e-6)
    assert found[0] @ found[1] > 0.5 > 0.2 > found[0] @ found[2]
    tokens = sum(map(len, sentences.read(TEXTS)))
    assert (packed.usage.prompt_tokens, packed.usage.total_tokens) == (tokens, tokens)


async def test_tokens_are_texts_read_by_the_client(client: openai.AsyncOpenAI) -> None:
    ids = sentences.read(TEXTS)
    by_text = await client.embeddings.create(model="minilm", input=TEXTS)
    for given in (ids, [one[1:-1] for one in ids]):  # with the encoder's marks, and without
        by_token = await client.embeddings.create(model="minilm", input=given)
        vectors = np.array([one.embedding for one in by_token.data])
        assert vectors == pytest.approx(np.array([one.embedding for one in by_text.data]), abs=1e-5)
    alone = await client.embeddings.create(model="minilm", input=ids[0])
    assert np.array(alone.data[0].embedding) == pytest.approx(np.array(by_text.data[0].embedding), abs=1e-5)


async def test_many_texts_keep_their_places(client: openai.AsyncOpenAI) -> None:
    texts = [f"number {n} " * (1 + n % 40) for n in range(150)]
    found = await client.embeddings.create(model="minilm", input=texts)
    again = await client.embeddings.create(model="minilm", input=[texts[149], texts[3]])
    vectors = [np.array(one.embedding) for one in found.data]
    assert [len(vectors), *(float(np.linalg.norm(one)) for one in vectors[:3])] == pytest.approx([150, 1, 1, 1])
    assert vectors[149] == pytest.approx(np.array(again.data[0].embedding), abs=1e-4)
    assert vectors[3] == pytest.approx(np.array(again.data[1].embedding), abs=1e-4)


async def test_pictures_by_the_models_own_tower(mesh: Mesh) -> None:
    """The profile engine's tower is a hash: the same picture is the same vector, another one is another."""
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(picture(n)).decode()}"}}
        for n in (1, 2, 1)
    ]
    reply = (await post(mesh, model="profile-tiny", input=parts)).json()
    one, two, three = (np.array(item["embedding"]) for item in reply["data"])
    assert one == pytest.approx(three)
    assert float(np.linalg.norm(one)) == pytest.approx(1.0)
    assert abs(float(one @ two)) < 0.9
    assert reply["usage"]["prompt_tokens"] > 3


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "empty": ({"input": ""}, 400, "input[0]"),
    "none": ({"input": []}, 400, "input"),
    "too many": ({"input": ["x"] * 2049}, 400, "input"),
    "too long": ({"input": ["x", "word " * 600]}, 400, "input[1]"),
    "no token": ({"input": [[1, 99_999_999]]}, 400, "input[0]"),
    "mixed up": ({"input": ["x", 3]}, 400, "input[1]"),
    "dimensions": ({"input": "x", "dimensions": 64}, 400, "dimensions"),
    "model": ({"input": "x", "model": "no-such"}, 404, "model"),
    "texts to a tower": ({"input": "x", "model": "profile-tiny"}, 400, "input[0]"),
    "broken picture": (
        {"input": [{"type": "image_url", "image_url": "data:image/png;base64,AAAA"}], "model": "profile-tiny"},
        400,
        "input[0].image_url",
    ),
    "unknown field": ({"input": "x", "colour": "red"}, 400, "colour"),
    "format": ({"input": "x", "encoding_format": "int8"}, 400, "encoding_format"),
}


@pytest.mark.parametrize(("body", "status", "field"), REFUSED.values(), ids=REFUSED)
async def test_refused(mesh: Mesh, body: dict[str, Any], status: int, field: str) -> None:
    reply = await post(mesh, **({"model": "minilm"} | body))
    assert (reply.status_code, reply.json()["error"]["param"]) == (status, field), reply.text


async def test_an_encoder_that_dies_costs_no_answer_where_there_is_another_chance(mesh: Mesh) -> None:
    async def one() -> int:
        for _ in range(40):
            reply = await post(mesh, model="minilm", input="still there?")
            if reply.status_code != 503:
                return reply.status_code
            assert reply.headers["retry-after"]
            await asyncio.sleep(0.5)
        return 503

    assert await one() == 200
    mesh.kill("encoder-0")
    assert await one() == 200
    await until_heard(mesh)


async def test_it_is_counted_listed_and_traced(mesh: Mesh, traces: Receiver, client: openai.AsyncOpenAI) -> None:
    assert "minilm" in [model.id for model in (await client.models.list()).data]
    assert (await client.models.retrieve("minilm")).id == "minilm"
    trace_id = "ab" * 16
    headers = {"traceparent": f"00-{trace_id}-{'cd' * 8}-01"}
    await client.embeddings.create(model="minilm", input=TEXTS, extra_headers=headers)
    async with httpx.AsyncClient(base_url=mesh.http_url, timeout=30.0) as plain:
        text = (await plain.get("/metrics")).text
    assert 'headrace_embedded_inputs_total{model_name="minilm"}' in text
    async with asyncio.timeout(10):
        while len(found := traces.spans(trace_id)) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert {span.name for span in found} == {"embeddings minilm", "encode"}


async def test_a_batch_of_embeddings(mesh: Mesh) -> None:
    lines = [
        {"custom_id": str(n), "method": "POST", "url": PATH, "body": {"model": "minilm", "input": text}}
        for n, text in enumerate([*TEXTS, ""])
    ]
    async with httpx.AsyncClient(base_url=mesh.http_url, timeout=30.0) as client:
        batch = await begin(client, jsonl(lines), endpoint=PATH)
        batch = await ended(client, batch["id"], 60.0)
        assert batch["request_counts"] == {"total": 4, "completed": 3, "failed": 1}
        answers = await content(client, batch["output_file_id"])
    assert {len(one["response"]["body"]["data"][0]["embedding"]) for one in answers} == {384}


async def test_over_the_open_inference_protocol(mesh: Mesh, client: openai.AsyncOpenAI) -> None:
    """Encoders are models with BYTES in and FP32 out; a tower's name is its model's with the modality behind."""
    expected = await client.embeddings.create(model="minilm", input=TEXTS)
    async with grpc.aio.insecure_channel(mesh.grpc_addr) as channel:
        stub = GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]
        found = [
            await stub.ModelInfer(_question("minilm", "text_input", *[text.encode() for text in TEXTS])),
            await stub.ModelInfer(_question("profile-tiny.image", "image", picture(1), picture(2))),
        ]
        described = await stub.ModelMetadata(pb.ModelMetadataRequest(name="minilm"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelInfer(_question("minilm", "image", picture(1)))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [list(one.shape) for one in described.outputs] == [[-1, 384]]
    assert [list(one.outputs[0].shape) for one in found] == [[3, 384], [2, found[1].outputs[0].shape[1]]]
    vectors = np.frombuffer(found[0].raw_output_contents[0], "<f4").reshape(3, 384)
    assert vectors == pytest.approx(np.array([one.embedding for one in expected.data]), abs=1e-5)


def _question(model: str, field: str, *elements: bytes) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name=field, datatype="BYTES", shape=[len(elements)])
    tensor.contents.bytes_contents.extend(elements)
    return pb.ModelInferRequest(model_name=model, inputs=[tensor])
