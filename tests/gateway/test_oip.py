"""The Open Inference Protocol of a real gateway, over gRPC and HTTP: the same answers, its own forms and errors."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import grpc.aio
import httpx
import pytest
from PIL import Image

from headrace.core.errors import InvalidInput
from headrace.core.types import End, Failure
from headrace.mesh import keyfile, rpc
from headrace.oip import open_inference_pb2 as pb
from headrace.oip.open_inference_pb2_grpc import (
    GRPCInferenceServiceStub,
    add_GRPCInferenceServiceServicer_to_server,
)
from services.gateway.auth import Keys
from services.gateway.embedders import Embedders
from services.gateway.embedding import Embedding
from services.gateway.fetch import NoFetcher
from services.gateway.http_reply import Disconnects
from services.gateway.oip import Inference
from services.gateway.oip_rest import OipPages
from services.gateway.oip_rpc import SERVICE, OipServicer
from services.gateway.oip_tensors import unpacked
from services.gateway.routes import bind, http_server
from tests.gateway.conftest import Edge, Edges, Options, until
from tests.gateway.standin import Script, StandIn

pytestmark = pytest.mark.timeout(30)
MODEL = "/v2/models/profile-tiny"

# As tritonclient 2.73.0 sends it: "hi there" with four parameters and an id.
TRITONS = bytes.fromhex(
    "0a0c70726f66696c652d74696e791a03722d3122100a0a69676e6f72655f656f731202080122100a0a6d61785f746f6b656e"
    "7312021003220d0a0473746f7012051a03454e4422180a0b74656d7065726174757265120921000000000000e03f2a160a0a"
    "746578745f696e707574120542595445531a0101320d0a0b746578745f6f75747075743a0c080000006869207468657265"
)


@dataclass
class Open:
    edge: Edge
    http: httpx.AsyncClient
    stub: GRPCInferenceServiceStub


async def opened(edges: Edges, stack: AsyncExitStack, options: Options | None = None) -> Open:
    edge = await edges.start("gw-oip", options)
    embedding = Embedding(Embedders(edge.front.gateway.bus), list(edge.front.models), NoFetcher(), edge.front.limiter)
    inference, disconnects = Inference(edge.front, embedding), Disconnects()
    edge.front.gateway.on_sweep.append(disconnects.sweep)
    servicer = OipServicer(inference)
    running = await rpc.serve(
        "127.0.0.1:0",
        lambda server: add_GRPCInferenceServiceServicer_to_server(servicer, server),  # type: ignore[no-untyped-call]
        [SERVICE],
    )
    stack.push_async_callback(running.stop, 0.0)
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{running.port}"))
    url = await served(edges, edge, OipPages(inference, disconnects))
    http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=20.0))
    return Open(edge, http, GRPCInferenceServiceStub(channel))  # type: ignore[no-untyped-call]


async def served(edges: Edges, edge: Edge, pages: OipPages) -> str:
    sock = bind("127.0.0.1:0")
    server = http_server(edge.front, None, pages.routes())
    task = asyncio.ensure_future(server.serve(sockets=[sock]))

    async def stop() -> None:
        server.should_exit = True
        await task

    edges.stack.push_async_callback(stop)
    return f"http://127.0.0.1:{sock.getsockname()[1]}"


@pytest.fixture
async def door(edges: Edges) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:
        yield await opened(edges, stack)


def ask(*texts: str, **parameters: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="profile-tiny", id="7")
    tensor = request.inputs.add(name="text_input", datatype="BYTES", shape=[len(texts)])
    tensor.contents.bytes_contents.extend(text.encode() for text in texts)
    for name, value in parameters.items():
        kind = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}[type(value)]
        setattr(request.parameters[name], kind, value)
    return request


def texts_of(response: pb.ModelInferResponse) -> list[bytes]:
    return unpacked("text_output", response.raw_output_contents[0])


def body(*texts: str, **parameters: Any) -> dict[str, Any]:
    tensor = {"name": "text_input", "datatype": "BYTES", "shape": [len(texts)], "data": list(texts)}
    return {"id": "7", "inputs": [tensor], "parameters": parameters}


def picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "PNG")
    return out.getvalue()


# --- what there is ---


async def test_health_and_metadata_say_the_same_on_both_ways(door: Open, cell: StandIn) -> None:
    stub, http = door.stub, door.http
    assert (await stub.ServerLive(pb.ServerLiveRequest())).live
    assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
    assert (await stub.ModelReady(pb.ModelReadyRequest(name="profile-tiny", version="1"))).ready
    server = await stub.ServerMetadata(pb.ServerMetadataRequest())
    model = await stub.ModelMetadata(pb.ModelMetadataRequest(name="profile-tiny"))
    assert (await http.get("/v2/health/live")).json() == {"live": True}
    assert (await http.get("/v2/health/ready")).status_code == 200
    assert (await http.get(f"{MODEL}/versions/1/ready")).json() == {"name": "profile-tiny", "ready": True}
    assert (await http.get("/v2")).json() == {
        "name": "headrace",
        "version": server.version,
        "extensions": list(server.extensions),
    }
    told = (await http.get(MODEL)).json()
    assert told["inputs"] == [
        {"name": one.name, "datatype": one.datatype, "shape": list(one.shape)} for one in model.inputs
    ]
    assert [one["name"] for one in told["inputs"]] == ["text_input", "image", "audio", "video"]
    assert told["outputs"] == [{"name": "text_output", "datatype": "BYTES", "shape": [-1]}]
    cell.servable = False
    await until(lambda: not door.edge.front.servable("profile-tiny"))
    assert not (await stub.ModelReady(pb.ModelReadyRequest(name="profile-tiny"))).ready
    assert (await http.get(f"{MODEL}/ready")).status_code == 503


# --- answers ---


async def test_an_answer_over_grpc(door: Open, cell: StandIn) -> None:
    response = await door.stub.ModelInfer(ask("hi", max_tokens=9, temperature=0.5, seed=3, stop='["A", "B"]'))
    assert (response.model_name, response.model_version, response.id) == ("profile-tiny", "1", "7")
    assert (response.outputs[0].name, response.outputs[0].datatype, list(response.outputs[0].shape)) == (
        "text_output",
        "BYTES",
        [1],
    )
    assert texts_of(response) == [b"hello"]
    assert response.parameters["finish_reason"].string_param == "stop"
    assert response.parameters["completion_tokens"].int64_param == 5
    sampling = cell.requests[0].sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.seed, sampling.stop) == (9, 0.5, 3, ("A", "B"))


async def test_what_tritons_client_sends_is_understood(door: Open, cell: StandIn) -> None:
    request = pb.ModelInferRequest.FromString(TRITONS)
    assert request.SerializeToString(deterministic=True) == TRITONS, "nothing in it is unknown"
    response = await door.stub.ModelInfer(request)
    assert (response.id, texts_of(response)) == ("r-1", [b"hello"])
    sampling = cell.requests[0].sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.stop, sampling.ignore_eos) == (3, 0.5, ("END",), True)
    assert cell.requests[0].question == "hi there"


async def test_several_texts_are_several_requests(door: Open, cell: StandIn) -> None:
    cell.script = lambda request: Script(tuple(request.question.encode()))
    response = await door.stub.ModelInfer(ask("one", "two", "three"))
    assert texts_of(response) == [b"one", b"two", b"three"]
    assert response.parameters["finish_reason"].string_param == "stop,stop,stop"
    reply = await door.http.post(f"{MODEL}/infer", json=body("four", "five"))
    assert reply.json()["outputs"] == [
        {"name": "text_output", "datatype": "BYTES", "shape": [2], "data": ["four", "five"]}
    ]
    assert reply.json()["id"] == "7"


async def test_a_picture_beside_the_text(door: Open, cell: StandIn) -> None:
    request = ask("what?")
    request.inputs.add(name="image", datatype="BYTES", shape=[1]).contents.bytes_contents.append(picture())
    await door.stub.ModelInfer(request)
    inputs = body("what?")
    coded = base64.b64encode(picture()).decode()
    image = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [coded]}
    inputs["inputs"].append(image | {"parameters": {"content_type": "base64"}})
    assert (await door.http.post(f"{MODEL}/infer", json=inputs)).status_code == 200
    first, second = cell.requests
    assert [part.meta.width for part in first.media] == [8]
    assert first.media == second.media
    assert first.prompt == second.prompt


async def test_binary_tensors_over_http(door: Open) -> None:
    raw = b"\x02\x00\x00\x00hi"
    tensor = {"name": "text_input", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    reply = await door.http.post(f"{MODEL}/infer", content=head + raw, headers=headers)
    length = int(reply.headers["inference-header-content-length"])
    assert json.loads(reply.content[:length])["outputs"][0]["parameters"] == {"binary_data_size": 9}
    assert reply.content[length:] == b"\x05\x00\x00\x00hello"


async def test_generate(door: Open, cell: StandIn) -> None:
    asked = {"text_input": "hi", "parameters": {"max_tokens": 7, "stop": ["X", "Y"]}}
    reply = (await door.http.post(f"{MODEL}/generate", json=asked)).json()
    assert (reply["text_output"], reply["model_name"], reply["finish_reason"]) == ("hello", "profile-tiny", "stop")
    assert cell.requests[0].sampling.stop == ("X", "Y")
    cell.script = lambda _: Script(wait_s=0.02)
    text = (await door.http.post(f"{MODEL}/versions/1/generate_stream", json=asked)).text
    events = [json.loads(line.removeprefix("data: ")) for line in text.split("\n\n") if line]
    assert "".join(event["text_output"] for event in events) == "hello"
    assert [event["done"] for event in events] == [False] * (len(events) - 1) + [True]
    assert (len(events) > 2, events[-1]["completion_tokens"]) == (True, 5)


async def test_a_stream_over_grpc_goes_on_after_an_error(door: Open, cell: StandIn) -> None:
    cell.script = lambda _: Script(wait_s=0.02)

    async def requests() -> AsyncIterator[pb.ModelInferRequest]:
        yield ask("one")
        yield ask("two", colour="red")
        yield ask("three")

    answers: list[bytes] = [b""]
    errors = []
    async for response in door.stub.ModelStreamInfer(requests()):
        if response.error_message:
            errors.append((len(answers), response.error_message, response.infer_response.id))
            continue
        answers[-1] += texts_of(response.infer_response)[0]
        if response.infer_response.parameters["triton_final_response"].bool_param:
            answers.append(b"")
    assert answers == [b"hello", b"hello", b""]
    assert errors == [(2, "'colour' is not known", "7")]


async def test_leaving_cancels(door: Open, cell: StandIn) -> None:
    cell.script = lambda _: Script(tuple(b"x" * 500), wait_s=0.05)
    call = door.stub.ModelInfer(ask("hi"))
    await until(lambda: len(cell.running) == 1)
    call.cancel()
    await until(lambda: any(heard.startswith("cancel") for heard in cell.heard))
    cell.heard.clear()
    async with door.http.stream("POST", f"{MODEL}/generate_stream", json={"text_input": "hi"}) as reply:
        await anext(reply.aiter_lines())
    await until(lambda: any(heard.startswith("cancel") for heard in cell.heard))


# --- refusals ---

BAD: dict[str, tuple[pb.ModelInferRequest, grpc.StatusCode]] = {
    "no input": (pb.ModelInferRequest(model_name="profile-tiny"), grpc.StatusCode.INVALID_ARGUMENT),
    "no such model": (pb.ModelInferRequest(model_name="no-such"), grpc.StatusCode.NOT_FOUND),
    "no such version": (
        pb.ModelInferRequest(model_name="profile-tiny", model_version="2"),
        grpc.StatusCode.NOT_FOUND,
    ),
    "an unknown parameter": (ask("hi", colour="red"), grpc.StatusCode.INVALID_ARGUMENT),
    "half a token": (ask("hi", max_tokens=1.5), grpc.StatusCode.INVALID_ARGUMENT),
    "not a number": (ask("hi", temperature="hot"), grpc.StatusCode.INVALID_ARGUMENT),
    "out of range": (ask("hi", temperature=7.0), grpc.StatusCode.INVALID_ARGUMENT),
    "stop": (ask("hi", stop="[1]"), grpc.StatusCode.INVALID_ARGUMENT),
    "another datatype": (
        pb.ModelInferRequest(
            model_name="profile-tiny",
            inputs=[pb.ModelInferRequest.InferInputTensor(name="text_input", datatype="FP32", shape=[1])],
        ),
        grpc.StatusCode.INVALID_ARGUMENT,
    ),
    "another shape": (
        pb.ModelInferRequest(
            model_name="profile-tiny",
            inputs=[pb.ModelInferRequest.InferInputTensor(name="text_input", datatype="BYTES", shape=[2])],
            raw_input_contents=[b"\x01\x00\x00\x00a"],
        ),
        grpc.StatusCode.INVALID_ARGUMENT,
    ),
    "too many texts": (ask(*["x"] * 33), grpc.StatusCode.INVALID_ARGUMENT),
}


@pytest.mark.parametrize(("request_", "status"), BAD.values(), ids=BAD)
async def test_refused_over_grpc(door: Open, request_: pb.ModelInferRequest, status: grpc.StatusCode) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await door.stub.ModelInfer(request_)
    assert caught.value.code() is status


async def test_refused_over_http_in_the_protocols_own_form(door: Open, cell: StandIn) -> None:
    for path, asked, status in (
        (f"{MODEL}/infer", {"inputs": []}, 400),
        (f"{MODEL}/infer", {"oops": 1}, 400),
        (f"{MODEL}/generate", {"text_input": "hi", "parameters": {"top_p": 2}}, 400),
        (f"{MODEL}/generate", {"text_input": "hi", "parameters": {"max_tokens": 10**400}}, 400),
        (f"{MODEL}/generate", {"text_input": "hi", "parameters": {"stop": "[" * 100_000}}, 400),
        ("/v2/models/minilm/generate", {"text_input": "hi"}, 400),
        ("/v2/models/minilm/generate_stream", {"text_input": "hi"}, 400),
        ("/v2/models/no-such/generate", {"text_input": "hi"}, 404),
        ("/v2/models/no-such/generate_stream", {"text_input": "hi"}, 404),
    ):
        reply = await door.http.post(path, json=asked)
        assert (reply.status_code, list(reply.json())) == (status, ["error"]), path
    longer = {"inference-header-content-length": "9" * 5_000}
    assert (await door.http.post(f"{MODEL}/infer", json={"inputs": []}, headers=longer)).status_code == 400
    cell.script = lambda _: Script((), End("error", Failure("ttl_expired", "waited", retry_after_s=2.0)))
    reply = await door.http.post(f"{MODEL}/generate_stream", json={"text_input": "hi"})
    assert (reply.status_code, reply.headers["retry-after"], reply.json()) == (429, "2", {"error": "waited"})


async def test_a_key_for_batches_alone_embeds_nothing_here(edges: Edges) -> None:
    shown, key = keyfile.make("ann", ["batch"])
    text = {"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["hi"]}
    async with AsyncExitStack() as stack:
        door = await opened(edges, stack, Options(keys=Keys([key])))
        headers = {"authorization": f"Bearer {shown}"}
        reply = await door.http.post("/v2/models/minilm/infer", json={"inputs": [text]}, headers=headers)
    assert (reply.status_code, "make a batch" in reply.json()["error"]) == (403, True)


async def test_keys_are_asked_for(edges: Edges, tmp_path: Any) -> None:
    (tmp_path / "keys").write_text("key-a ann\n")
    async with AsyncExitStack() as stack:
        door = await opened(edges, stack, Options(keys=Keys.read(str(tmp_path / "keys"))))
        assert (await door.http.post(f"{MODEL}/generate", json={"text_input": "hi"})).status_code == 401
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await door.stub.ModelInfer(ask("hi"))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        key = (("authorization", "Bearer key-a"),)
        assert texts_of(await door.stub.ModelInfer(ask("hi"), metadata=key)) == [b"hello"]
        assert (await door.http.get("/v2/health/live")).status_code == 200


@pytest.mark.parametrize("raw", [b"\x01", b"\x05\x00\x00\x00abc", b"\x00\x00\x00\x00" * 3000])
def test_raw_bytes_that_are_no_tensor(raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        unpacked("x", raw)
