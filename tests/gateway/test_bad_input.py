"""Everything a client can get wrong, over HTTP and gRPC: a clear error naming the field, and nothing accepted."""

import asyncio
import base64
import io
import json
import wave
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from PIL import Image

from headrace.v1 import common_pb2, gateway_pb2
from headrace.v1.gateway_pb2_grpc import GatewayServiceStub
from services.gateway.ask import BODY_BYTES_MAX
from tests.gateway.conftest import Edge
from tests.gateway.standin import StandIn

pytestmark = pytest.mark.timeout(60)
CHAT = "/v1/chat/completions"


def png(width: int = 4, height: int = 4) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height)).save(out, "PNG")
    return out.getvalue()


def bomb() -> bytes:
    """A few bytes that claim to be 100,000 x 100,000 pixels."""
    header = b"IHDR" + (100_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    crc = zlib.crc32(header).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + header + crc + png()[33:]


def uri(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64," + base64.b64encode(data).decode()


def content(*parts: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": list(parts)}], **more}).encode()


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def text(words: str = "hi", **more: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": words}], **more}).encode()


def audio(data: str, kind: str = "wav") -> bytes:
    return content({"type": "input_audio", "input_audio": {"data": data, "format": kind}})


def silence(seconds: int) -> bytes:
    """A WAV file of 8 kHz."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, 8_000, 0, "NONE", ""))
        file.writeframes(bytes(16_000 * seconds))
    return out.getvalue()


IMAGE = "messages[0].content[0].image_url"
AUDIO = "messages[0].content[0].input_audio"
GOOD = {"type": "text", "text": "hi"}

# name: body, status, code, field
HTTP: dict[str, tuple[bytes, int, str, str | None]] = {
    "unknown model": (text(model="gpt-9"), 404, "model_not_found", "model"),
    "not JSON": (b'{"messages": [', 400, "invalid_input", None),
    "not UTF-8": (b'{"model": "\xff"}', 400, "invalid_input", None),
    "no body": (b"", 400, "invalid_input", None),
    "not an object": (b"[1]", 400, "invalid_input", None),
    "deeply nested": (b"[" * 100_000, 400, "invalid_input", None),
    "no messages": (b'{"model": "profile-tiny"}', 400, "invalid_input", "messages"),
    "empty messages": (b'{"messages": []}', 400, "invalid_input", "messages"),
    "messages of a wrong type": (b'{"messages": "hi"}', 400, "invalid_input", "messages"),
    "too many messages": (
        json.dumps({"messages": [{"role": "user", "content": "a"}] * 2000}).encode(),
        400,
        "invalid_input",
        "messages",
    ),
    "an unknown role": (
        b'{"messages": [{"role": "user", "content": "a"}, {"role": "wizard", "content": "b"}]}',
        400,
        "invalid_input",
        "messages[1].role",
    ),
    "the assistant's turn last": (
        b'{"messages": [{"role": "assistant", "content": "a"}]}',
        400,
        "invalid_input",
        "messages[0].role",
    ),
    "no content": (b'{"messages": [{"role": "user"}]}', 400, "invalid_input", "messages[0].content"),
    "empty content list": (content(), 400, "invalid_input", "messages[0].content"),
    "content of a wrong type": (
        b'{"messages": [{"role": "user", "content": 7}]}',
        400,
        "invalid_input",
        "messages[0].content",
    ),
    "a part without its text": (content(GOOD, {"type": "text"}), 400, "invalid_input", "messages[0].content[1].text"),
    "a part of an unknown type": (
        content(GOOD, {"type": "smell", "smell": "x"}),
        400,
        "unsupported_modality",
        "messages[0].content[1].type",
    ),
    "no audio at all": (audio("AAAA"), 400, "invalid_input", AUDIO),
    "empty audio": (audio(""), 400, "invalid_input", AUDIO),
    "audio in broken base64": (audio("***"), 400, "invalid_input", f"{AUDIO}.data"),
    "audio of an unknown format": (audio("AAAA", "aiff"), 400, "invalid_input", f"{AUDIO}.format"),
    "audio beyond 30 s": (audio(base64.b64encode(silence(31)).decode()), 400, "invalid_input", AUDIO),
    "truncated audio": (audio(base64.b64encode(silence(1)[:-9]).decode()), 400, "invalid_input", AUDIO),
    "an audio URL that is a picture's": (
        content({"type": "audio_url", "audio_url": {"url": "data:image/png;base64,AAAA"}}),
        400,
        "invalid_input",
        "messages[0].content[0].audio_url",
    ),
    "no video at all": (
        content({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}),
        400,
        "invalid_input",
        "messages[0].content[0].video_url",
    ),
    "an empty image": (content(image(uri(b""))), 400, "invalid_input", IMAGE),
    "no image at all": (content(image(uri(b"hello, world"))), 400, "invalid_input", IMAGE),
    "a truncated image": (content(image(uri(png(64, 64)[:50]))), 400, "invalid_input", IMAGE),
    "a decompression bomb": (content(image(uri(bomb()))), 400, "invalid_input", IMAGE),
    "broken base64": (content(image("data:image/png;base64,***")), 400, "invalid_input", IMAGE),
    "a data URI of text": (content(image("data:text/plain,hello")), 400, "invalid_input", IMAGE),
    "a data URI without data": (content(image("data:image/png")), 400, "invalid_input", IMAGE),
    "a file URL": (content(image("file:///etc/passwd")), 400, "invalid_input", IMAGE),
    "a media URL": (content(image("http://example.com/a.png")), 403, "permission_denied", IMAGE),
    "10,000 images": (
        content(*[image(uri(png()))] * 10_000),
        400,
        "invalid_input",
        "messages[0].content[16].image_url",
    ),
    "an image in the system message": (
        json.dumps(
            {"messages": [{"role": "system", "content": [image(uri(png()))]}, {"role": "user", "content": "a"}]}
        ).encode(),
        400,
        "invalid_input",
        "messages[0].content",
    ),
    "a prompt longer than the context": (text("x" * 20_000), 400, "context_length_exceeded", "messages"),
    "a prompt of two megabytes": (text("x" * 2_000_000), 413, "payload_too_large", "messages"),
    "no room for the output": (text(max_tokens=9000), 400, "context_length_exceeded", "max_tokens"),
    "max_tokens 0": (text(max_tokens=0), 400, "invalid_input", "max_tokens"),
    "negative max_tokens": (text(max_completion_tokens=-5), 400, "invalid_input", "max_completion_tokens"),
    "max_tokens as a string": (text(max_tokens="9"), 400, "invalid_input", "max_tokens"),
    "huge max_tokens": (text(max_tokens=10**30), 400, "invalid_input", "max_tokens"),
    "negative temperature": (text(temperature=-1), 400, "invalid_input", "temperature"),
    "absurd temperature": (text(temperature=1e300), 400, "invalid_input", "temperature"),
    "top_p above 1": (text(top_p=1.5), 400, "invalid_input", "top_p"),
    "negative top_k": (text(top_k=-1), 400, "invalid_input", "top_k"),
    "negative seed": (text(seed=-1), 400, "invalid_input", "seed"),
    "absurd repetition_penalty": (text(repetition_penalty=1e9), 400, "invalid_input", "repetition_penalty"),
    "an empty stop string": (text(stop=[""]), 400, "invalid_input", "stop"),
    "too many stop strings": (text(stop=["a"] * 100), 400, "invalid_input", "stop"),
    "an unknown class": (text(slo_class="platinum"), 400, "invalid_input", "slo_class"),
    "a timeout of nothing": (text(timeout_s=0), 400, "invalid_input", "timeout_s"),
    "a timeout of years": (text(timeout_s=1e9), 400, "invalid_input", "timeout_s"),
    "no answer": (text(n=0), 400, "invalid_input", "n"),
    "nine answers": (text(n=9), 400, "invalid_input", "n"),
    "top_logprobs alone": (text(top_logprobs=2), 400, "invalid_input", "top_logprobs"),
    "top_logprobs without logprobs": (text(logprobs=False, top_logprobs=0), 400, "invalid_input", "top_logprobs"),
    "too many top_logprobs": (text(logprobs=True, top_logprobs=21), 400, "invalid_input", "top_logprobs"),
    "negative top_logprobs": (text(logprobs=True, top_logprobs=-1), 400, "invalid_input", "top_logprobs"),
    "more logprobs than a message holds": (
        text(logprobs=True, top_logprobs=20, max_tokens=3200),
        400,
        "invalid_input",
        "top_logprobs",
    ),
    "a tool without a function": (text(tools=[{"type": "function"}]), 400, "invalid_input", "tools[0].function"),
    "tool_choice": (text(tool_choice="required"), 400, "invalid_input", "tool_choice"),
    "response_format": (
        text(response_format={"type": "xml"}),
        400,
        "invalid_input",
        "response_format.type",
    ),
    "stream_options without stream": (
        text(stream_options={"include_usage": True}),
        400,
        "invalid_input",
        "stream_options",
    ),
    "an unknown field": (text(tempersture=1), 400, "invalid_input", "tempersture"),
}


@pytest.mark.parametrize(("body", "status", "code", "field"), HTTP.values(), ids=HTTP.keys())
async def test_over_http(edge: Edge, cell: StandIn, body: bytes, status: int, code: str, field: str | None) -> None:
    reply = await edge.http.post(CHAT, content=body)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (status, code, field), error
    assert error["message"]
    assert error["type"]
    assert (cell.requests, edge.blobs.stored) == ([], {})


async def test_values_that_mean_off_are_accepted(edge: Edge) -> None:
    off: dict[str, Any] = {"n": 1, "logprobs": False, "tools": [], "tool_choice": "auto", "presence_penalty": 0}
    more: dict[str, Any] = {"user": "u", "metadata": {"a": "b"}, "response_format": {"type": "text"}, "stop": None}
    assert (await edge.http.post(CHAT, content=text(**off, **more))).status_code == 200


async def test_an_oversized_body_is_refused_by_its_announcement(edge: Edge) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(edge.url.rpartition(":")[2]))
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {BODY_BYTES_MAX + 1}\r\n\r\n"
    writer.write(head.encode())
    reply = await reader.read()
    writer.close()
    assert reply.startswith(b"HTTP/1.1 413")
    assert b'"param":"body"' in reply


async def test_an_oversized_body_in_pieces_is_cut_off(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.gateway.http_reply.BODY_BYTES_MAX", 1000)

    async def pieces() -> Any:
        for _ in range(5):
            yield b" " * 500

    assert (await edge.http.post(CHAT, content=pieces())).status_code == 413


@dataclass(frozen=True)
class Row:
    change: Callable[[gateway_pb2.GenerateRequest], Any]
    code: str
    field: str


def media(data: bytes = b"", modality: str = "image", url: str = "") -> Callable[[gateway_pb2.GenerateRequest], Any]:
    part = gateway_pb2.ContentPart(media=gateway_pb2.MediaInput(modality=modality, data=data, url=url))
    return lambda request: request.messages[0].content.append(part)


def sampling(**values: Any) -> Callable[[gateway_pb2.GenerateRequest], Any]:
    return lambda request: request.sampling.CopyFrom(common_pb2.Sampling(**values))


def many_images(request: gateway_pb2.GenerateRequest) -> None:
    part = gateway_pb2.ContentPart(media=gateway_pb2.MediaInput(modality="image", data=png()))
    request.messages[0].content.extend([part] * 10_000)


PART = "messages[0].content[1].media"
GRPC = {
    "unknown model": Row(lambda r: setattr(r, "model", "gpt-9"), "NOT_FOUND", "model"),
    "no messages": Row(lambda r: r.ClearField("messages"), "INVALID_ARGUMENT", "messages"),
    "empty content": Row(lambda r: r.messages[0].ClearField("content"), "INVALID_ARGUMENT", "messages[0].content"),
    "an empty part": Row(lambda r: r.messages[0].content.add(), "INVALID_ARGUMENT", "messages[0].content[1]"),
    "no data": Row(media(), "INVALID_ARGUMENT", PART),
    "no modality": Row(media(b"x", ""), "INVALID_ARGUMENT", f"{PART}.modality"),
    "an unknown modality": Row(media(b"x", "smell"), "INVALID_ARGUMENT", f"{PART}.data"),
    "a truncated image": Row(media(png(64, 64)[:50]), "INVALID_ARGUMENT", f"{PART}.data"),
    "a decompression bomb": Row(media(bomb()), "INVALID_ARGUMENT", f"{PART}.data"),
    "a media URL": Row(media(url="http://example.com/a.png"), "PERMISSION_DENIED", f"{PART}.url"),
    "10,000 images": Row(many_images, "INVALID_ARGUMENT", "messages[0].content[17].media.data"),
    "a long prompt": Row(
        lambda r: setattr(r.messages[0].content[0], "text", "x" * 20_000), "INVALID_ARGUMENT", "messages"
    ),
    "no room": Row(sampling(max_tokens=9000), "INVALID_ARGUMENT", "sampling.max_tokens"),
    "negative temperature": Row(sampling(temperature=-1), "INVALID_ARGUMENT", "sampling.temperature"),
    "temperature NaN": Row(sampling(temperature=float("nan")), "INVALID_ARGUMENT", "sampling.temperature"),
    "too many likely tokens": Row(sampling(logprobs=21), "INVALID_ARGUMENT", "sampling.logprobs"),
    "absurd seed": Row(sampling(seed=2**64 - 1), "INVALID_ARGUMENT", "sampling.seed"),
    "an unknown class": Row(lambda r: setattr(r, "slo_class", "gold"), "INVALID_ARGUMENT", "slo_class"),
    "a negative timeout": Row(lambda r: setattr(r, "timeout_s", -1), "INVALID_ARGUMENT", "timeout_s"),
    "a key too long": Row(lambda r: setattr(r, "idempotency_key", "k" * 999), "INVALID_ARGUMENT", "idempotency_key"),
}


@pytest.mark.parametrize("row", GRPC.values(), ids=GRPC.keys())
async def test_over_grpc(edge: Edge, cell: StandIn, row: Row) -> None:
    request = gateway_pb2.GenerateRequest(
        messages=[gateway_pb2.Message(role="user", content=[gateway_pb2.ContentPart(text="hi")])]
    )
    row.change(request)
    async with grpc.aio.insecure_channel(edge.grpc) as channel:
        stub: Any = GatewayServiceStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [event async for event in stub.Generate(request, timeout=10)]
    assert (caught.value.code().name, bad_field(caught.value)) == (row.code, row.field), caught.value.details()
    assert (cell.requests, edge.blobs.stored) == ([], {})


def bad_field(error: grpc.aio.AioRpcError) -> str:
    trailing: Any = error.trailing_metadata()
    status = status_pb2.Status.FromString(dict(trailing)["grpc-status-details-bin"])
    for detail in status.details:
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            return str(bad.field_violations[0].field)
    return ""


async def test_bytes_that_are_no_proto(edge: Edge) -> None:
    async with grpc.aio.insecure_channel(edge.grpc) as channel:
        call: Any = channel.unary_stream("/headrace.v1.GatewayService/Generate", None, None)
        with pytest.raises(grpc.aio.AioRpcError):
            [event async for event in call(b"\xff\xff\xff\xff", timeout=10)]
    assert (await edge.http.get("/health")).status_code == 200
