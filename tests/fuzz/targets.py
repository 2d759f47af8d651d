"""What is fuzzed: everything that bytes from outside go through before anybody has judged them.

A target takes bytes and returns; it may raise what its callers answer with (typed errors), and nothing else.
`make fuzz` drives them with atheris, test_fuzz_targets.py with hypothesis.
"""

import asyncio
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from google.protobuf.message import DecodeError, Message
from nats.errors import ProtocolError

from headrace.core.errors import HeadraceError
from headrace.mesh import keyfile
from headrace.mesh.errors import BadSetup
from headrace.mesh.nats_wire import Reader, header, parse_headers, status
from headrace.modalities import image
from headrace.modalities.audio import probe_sound
from headrace.modalities.video import probe_video
from headrace.v1 import common_pb2, gateway_pb2, governor_pb2, queue_pb2
from headrace.wire import convert, work
from headrace.wire.governed import governed_from_proto
from services.gateway import chat, completions, fetch, responses, rpc
from services.gateway.ask import body_hash, check
from services.gateway.media import source_of_url

Target = Callable[[bytes], None]
ASSETS = Path(image.__file__).parents[1] / "assets" / "demo"


def grpc_request(data: bytes) -> None:
    """GenerateRequest to an Ask that has been checked."""
    try:
        ask = rpc.to_ask(gateway_pb2.GenerateRequest.FromString(data))
        check(ask, rpc.SAMPLING)
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


def _media() -> gateway_pb2.MediaInput:
    return gateway_pb2.MediaInput(modality="image", data=b"\x89PNG\r\n\x1a\n", mime="image/png")
