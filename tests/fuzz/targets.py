"""What is fuzzed: everything that bytes from outside go through before anybody has judged them.

A target takes bytes and returns; it may raise what its callers answer with (typed errors), and nothing else.
`make fuzz` drives them with atheris, test_fuzz_targets.py with hypothesis.
"""

import asyncio
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from google.protobuf.message import DecodeError, Message
from nats.errors import ProtocolError

from headrace.core.errors import HeadraceError
from headrace.engines.families import family
from headrace.mesh import keyfile
from headrace.mesh.errors import BadSetup
from headrace.mesh.nats_wire import Reader, header, parse_headers, status
from headrace.modalities import image
from headrace.modalities.audio import probe_sound
from headrace.modalities.video import probe_video
from headrace.oip import open_inference_pb2 as oip_pb2
from headrace.v1 import common_pb2, gateway_pb2, governor_pb2, queue_pb2
from headrace.wire import convert, work
from headrace.wire.governed import governed_from_proto
from services.gateway import (
    batch_lines,
    chat,
    completions,
    embeddings_route,
    fetch,
    multipart,
    oip,
    oip_rest,
    oip_rpc,
    oip_tensors,
    responses,
    rpc_ask,
)
from services.gateway.ask import body_hash, check
from services.gateway.media import source_of_url

Target = Callable[[bytes], None]
ASSETS = Path(image.__file__).parents[1] / "assets" / "demo"


def grpc_request(data: bytes) -> None:
    """GenerateRequest to an Ask that has been checked."""
    try:
        ask = rpc_ask.to_ask(gateway_pb2.GenerateRequest.FromString(data))
        check(ask, rpc_ask.SAMPLING)
    except (DecodeError, HeadraceError):
        return
    body_hash(ask)


def http_request(data: bytes) -> None:
    """A body of any endpoint, with headers before the first NUL, to Asks that have been checked."""
    head, _, body = data.partition(b"\0")
    headers = dict(line.partition(b": ")[::2] for line in head.split(b"\n"))
    for read in (chat.question, completions.question, responses.question):
        try:
            asks = read(body or data, headers, "").asks
            for ask in asks:
                check(ask)
        except HeadraceError:
            continue
        body_hash(asks[0])


def _embeddings(_head: bytes, body: bytes) -> None:
    embeddings_route.inputs_of(embeddings_route._decode(body))


def _asked(question: oip_tensors.Question) -> None:
    for ask in oip._asks(family("profile-tiny"), question):
        check(ask)


def _tensors(head: bytes, body: bytes) -> None:
    said, binary = oip_rest._parted(body, {oip_rest.HEADER_LENGTH: head})
    _asked(oip_rest._question(oip_rest._decoded(oip_rest._infer, said), "m", "", binary))


def _generate(_head: bytes, body: bytes) -> None:
    _asked(oip_rest._generating(oip_rest._decoded(oip_rest._generate, body), "m", ""))


def _tensors_grpc(_head: bytes, body: bytes) -> None:
    _asked(oip_rpc._question(oip_pb2.ModelInferRequest.FromString(body)))


def _upload(head: bytes, body: bytes) -> None:
    multipart.fields_of(head, body)


def _batch(_head: bytes, body: bytes) -> None:
    """Its lines are judged as a whole file; those without fault are read again when they run."""
    judge = batch_lines.Check("/v1/chat/completions", 50)
    for line in body.split(b"\n"):
        before = len(judge.errors)
        judge.feed(line)
        if judge.hopeless:
            break
        if len(judge.errors) == before:
            with suppress(HeadraceError):
                check(chat.question(bytes(batch_lines.read(line).body), {}, "").asks[0])
    judge.end()


BESIDE = (_embeddings, _tensors, _generate, _tensors_grpc, _upload, _batch)


def http_beside(data: bytes) -> None:
    """What stands beside the answers: a byte that says which of them, a header up to the first NUL, the body."""
    if not data:
        return
    head, _, body = data[1:].partition(b"\0")
    try:
        BESIDE[data[0] % len(BESIDE)](head, body)
    except (DecodeError, HeadraceError):
        return


# Messages between services: read by whoever subscribes, so also what a worker that was taken over makes up.
WIRE: tuple[tuple[type[Message], Callable[[Any], object]], ...] = (
    (queue_pb2.RequestRecord, convert.request_from_proto),
    (queue_pb2.ResultRecord, convert.result_from_proto),
    (common_pb2.End, convert.end_from_proto),
    (common_pb2.TensorHandle, convert.handle_from_proto),
    (queue_pb2.WorkBatch, work.work_batch_from_proto),
    (queue_pb2.EventBatch, lambda batch: list(work.events_from_proto(batch))),
    (queue_pb2.Heartbeat, work.heartbeat_from_proto),
    (queue_pb2.ControlBatch, lambda batch: list(work.control_from_proto(batch))),
    (governor_pb2.CapBatch, lambda batch: _or_refused(governed_from_proto, batch)),
    (queue_pb2.TokenBatch, lambda batch: convert.logprobs_from_proto(batch.logprobs)),
)


def _or_refused(read: Callable[[Any], object], message: Any) -> None:
    """Its readers expect a ValueError for a number out of range, and say so in their log."""
    with suppress(ValueError):
        read(message)


def wire_message(data: bytes) -> None:
    """The first byte says which message the others are."""
    if not data:
        return
    kind, read = WIRE[data[0] % len(WIRE)]
    try:
        message = kind.FromString(data[1:])
    except DecodeError:
        return
    read(message)


PROBES: tuple[Callable[[bytes], object], ...] = (image.probe, probe_sound, probe_video)


def media_header(data: bytes) -> None:
    """The first byte says as what the others are probed, in the gateway's own process."""
    if not data:
        return
    try:
        PROBES[data[0] % len(PROBES)](data[1:])
    except HeadraceError:
        return


def picture(data: bytes) -> None:
    """Decoded to the end, as an encoder does: what passed the probe and what did not."""
    try:
        meta = image.probe(data)
        decoded = image.decode(data)
    except HeadraceError:
        return
    assert decoded.mode == "RGB"
    assert meta.width * meta.height <= image.MAX_PIXELS


def media_url(data: bytes) -> None:
    text = data.decode("utf-8", errors="replace")  # JSON and protobuf let no lone surrogate through
    try:
        source = source_of_url("image", text, "f")
        if source.url:
            url = fetch._parse(source.url, "f")
            fetch._parse(str(url.join(data.decode("latin-1"))), "f")  # as a Location header
            assert url.raw_host.decode("ascii") not in fetch.Hosts(["only.example"]) or "only.example" in text.lower()
    except (HeadraceError, httpx.InvalidURL):
        return


class _Nobody:
    async def on_ping(self) -> None: ...
    async def on_pong(self) -> None: ...
    async def on_info(self, info: bytes) -> None: ...
    async def on_error(self, error: str) -> None: ...


def nats_frames(data: bytes) -> None:
    """The bus's own reader, fed in two pieces; every message goes to a handler that looks at its headers."""

    def handle(subject: bytes, reply: bytes, head: bytes, body: bytes) -> None:
        parse_headers(head)
        status(head)
        header(head, b"Nats-Sequence")

    failures: list[Exception] = []
    reader = Reader(_Nobody(), lambda _subject, error: failures.append(error))
    reader.handlers = {b"%d" % n: handle for n in range(10)}

    async def feed() -> None:
        await reader.parse(data[: len(data) // 2])
        await reader.parse(data[len(data) // 2 :])

    try:
        asyncio.run(feed())
    except ProtocolError:
        return
    assert not [error for error in failures if not isinstance(error, UnicodeDecodeError)], failures


def key_file(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("keys", "keys.toml"):
            path = Path(folder) / name
            path.write_bytes(data)
            try:
                keys = keyfile.read(path)
            except BadSetup:
                continue
            if name == "keys.toml" and all(map(_writable, keys)):
                keyfile.write(path, keys)
                assert [key.hash for key in keyfile.read(path)] == [key.hash for key in keys]


def _writable(key: Any) -> bool:
    return bool((key.id + key.tenant).isprintable())


TARGETS: Mapping[str, Target] = {
    target.__name__: target
    for target in (
        grpc_request,
        http_request,
        http_beside,
        wire_message,
        media_header,
        picture,
        media_url,
        nats_frames,
        key_file,
    )
}


def seeds(name: str) -> Iterable[bytes]:
    """Good inputs to begin with: a fuzzer that starts from nothing stays in the first check for long."""
    files = sorted(ASSETS.iterdir())
    if name == "grpc_request":
        parts = [gateway_pb2.ContentPart(text="hi"), gateway_pb2.ContentPart(media=_media())]
        yield gateway_pb2.GenerateRequest(
            model="m",
            messages=[gateway_pb2.Message(role="user", content=parts)],
            sampling=common_pb2.Sampling(max_tokens=5, stop=["x"], temperature=0.5),
            slo_class="interactive",
            timeout_s=5,
        ).SerializeToString()
    elif name == "http_request":
        yield b'x-slo-ttft-ms: 5\n\0{"messages":[{"role":"user","content":"hi"}],"stream":true,"stop":["a"]}'
        part = b'{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}}'
        yield b'{"messages":[{"role":"user","content":[' + part + b"]}]}"
    elif name == "http_beside":
        yield from _seeds_beside()
    elif name == "wire_message":
        for at, (kind, _) in enumerate(WIRE):
            yield bytes([at]) + kind().SerializeToString()
        yield b"\x04" + queue_pb2.WorkBatch(epoch=3, prefill=[queue_pb2.PrefillCommand()]).SerializeToString()
    elif name == "media_header":
        kinds = {".png": 0, ".jpg": 0, ".webp": 0, ".wav": 1, ".mp3": 1, ".flac": 1, ".mp4": 2, ".webm": 2}
        for path in files:
            if path.suffix in kinds:
                yield bytes([kinds[path.suffix]]) + path.read_bytes()[:20_000]
    elif name == "picture":
        yield from (path.read_bytes() for path in files if path.suffix in (".png", ".jpg", ".webp"))
    elif name == "media_url":
        yield from (b"https://user@only.example:80/a?b#c", b"data:image/png;base64,AAAA", b"http://[::1%25a]/")
    elif name == "nats_frames":
        messages = b"MSG a.b 1 r.1 3\r\nabc\r\nHMSG a 2 21 22\r\nNATS/1.0 503\r\nA: b\r\n\r\nx\r\n"
        yield messages + b"PING\r\nINFO {}\r\n-ERR 'x'\r\n"
    else:
        yield b"secret tenant # comment\n"
        yield (
            b"[[key]]\nid='a'\nhash='sha256:"
            + b"0" * 64
            + b"'\ntenant='t'\nscopes=['batch']\nexpires=2027-01-01T00:00:00Z\n"
        )


def _seeds_beside() -> Iterable[bytes]:
    yield (
        b"\0\0" + b'{"input": ["a", [1, 2], {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}'
    )
    infer = b'{"inputs":[{"name":"text_input","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":6}}]'
    infer += b',"parameters":{"max_tokens":5,"stop":"[\\"a\\"]"}}'
    yield b"\1" + b"%d\0" % len(infer) + infer + b"\2\0\0\0hi"
    yield b"\2\0" + b'{"text_input":"hi","parameters":{"max_tokens":5,"stop":["a","b"],"seed":7,"temperature":0.5}}'
    tensor = oip_pb2.ModelInferRequest.InferInputTensor(name="text_input", datatype="BYTES", shape=[1])
    parameters = {"max_tokens": oip_pb2.InferParameter(int64_param=5), "stop": oip_pb2.InferParameter(string_param="a")}
    asked = oip_pb2.ModelInferRequest(inputs=[tensor], raw_input_contents=[b"\2\0\0\0hi"], parameters=parameters)
    yield b"\3\0" + asked.SerializeToString()
    body = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b--\r\n'
    yield b"\4multipart/form-data; boundary=b\0" + body
    line = {
        "custom_id": "a",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"messages": [], "stream": False},
    }
    yield b"\5\0" + b"\n".join(json.dumps(line | {"custom_id": name}).encode() for name in "abc")


def _media() -> gateway_pb2.MediaInput:
    return gateway_pb2.MediaInput(modality="image", data=b"\x89PNG\r\n\x1a\n", mime="image/png")
