"""Bad input gets a clear error that names the field, and the workers go on."""

import base64
import json
import struct
import zlib
from typing import Any

import httpx
import pytest

from headrace.cli.supervisor import Mesh
from tests.e2e.asking import ask, picture, request


def user(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}], "max_tokens": 4}


def text(words: str = "what is it?") -> dict[str, Any]:
    return {"type": "text", "text": words}


def image(data: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(data).decode()}}


def link(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def bomb() -> bytes:
    """A few kilobytes that claim to be 60,000 x 60,000 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


PNG = picture(7)
VIDEO = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}
CASES: list[tuple[str, Any, int, str]] = [
    ("unknown model", {**user(text()), "model": "no-such-model"}, 404, "model"),
    ("no messages", {"messages": []}, 400, "messages"),
    ("empty content", user(), 400, "messages[0].content"),
    ("unknown role", {"messages": [{"role": "wizard", "content": "hi"}]}, 400, "messages[0].role"),
    ("content is a number", {"messages": [{"role": "user", "content": 7}]}, 400, "messages[0].content"),
    ("negative max_tokens", {**user(text()), "max_tokens": -1}, 400, "max_tokens"),
    ("absurd max_tokens", {**user(text()), "max_tokens": 10**9}, 400, "max_tokens"),
    ("negative temperature", {**user(text()), "temperature": -0.5}, 400, "temperature"),
    ("top_p above one", {**user(text()), "top_p": 1.5}, 400, "top_p"),
    ("temperature is text", {**user(text()), "temperature": "hot"}, 400, "temperature"),
    ("truncated image", user(text(), image(PNG[: len(PNG) // 2])), 400, "messages[0].content[1].image_url"),
    ("not an image", user(text(), image(b"\x89PNG\r\n\x1a\nnonsense" * 9)), 400, "messages[0].content[1].image_url"),
    ("empty image", user(image(b""), text()), 400, "messages[0].content[0].image_url"),
    ("decompression bomb", user(text(), image(bomb())), 400, "messages[0].content[1].image_url"),
    ("10,000 images", user(*[image(PNG)] * 10_000, text()), 400, "messages"),
    ("prompt past the context", user(text("word " * 20_000)), 400, "messages"),
    (
        "video",
        user({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}),
        400,
        "messages[0].content[0]",
    ),
    ("unknown part", user({"type": "smell", "smell": "roses"}), 400, "messages[0].content[0]"),
    ("media URL", user(link("http://example.com/a.png")), 403, "messages[0].content[0].image_url"),
    ("file URL", user(link("file:///etc/passwd")), 400, "messages[0].content[0].image_url"),
    ("unknown field", {**user(text()), "max_tokns": 3}, 400, "max_tokns"),
]


async def post(mesh: Mesh, content: bytes) -> httpx.Response:
    async with httpx.AsyncClient(base_url=mesh.http_url, timeout=30) as client:
        headers = {"Content-Type": "application/json"}
        return await client.post("/v1/chat/completions", content=content, headers=headers)


@pytest.mark.parametrize(("body", "status", "where"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_the_error_names_the_field(mesh: Mesh, body: Any, status: int, where: str) -> None:
    reply = await post(mesh, json.dumps(body).encode())
    assert reply.status_code == status, reply.text[:500]
    error = reply.json()["error"]
    assert error["message"]
    assert error["code"]
    assert (error["param"] or "").startswith(where), error


@pytest.mark.parametrize("content", [b"{", b"[]", b"null", b'{"messages": ', b"\xff\xfe", b""])
async def test_malformed_json(mesh: Mesh, content: bytes) -> None:
    reply = await post(mesh, content)
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"


async def test_an_oversized_body_is_refused(mesh: Mesh) -> None:
    reply = await post(mesh, b'{"messages": "' + b"x" * (65 * 2**20) + b'"}')
    assert reply.status_code == 413


async def test_the_workers_are_the_same_ones_and_serve(mesh: Mesh) -> None:
    """After all of the above nobody was started again."""
    before = {service: mesh.pid(service) for service in mesh.ids}
    for _name, body, _status, _where in CASES:
        await post(mesh, json.dumps(body).encode())
    answer = await ask(mesh.grpc_addr, request("still there?", images=[PNG], max_tokens=3))
    assert (answer.reason, len(answer.tokens)) == ("length", 3)
    assert {service: mesh.pid(service) for service in mesh.ids} == before
    assert all(mesh.alive(service) for service in mesh.ids)
