"""Ways around the checks of a media URL, and what they come to: rebinding, spellings, slow and huge servers, bombs."""

import asyncio
import gzip
import io
import struct
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
from PIL import Image, PngImagePlugin

from headrace.core.errors import HeadraceError, InvalidInput, PayloadTooLarge, PermissionDenied
from headrace.engines.families import family
from services.gateway import fetch
from services.gateway.ask import MediaSource
from services.gateway.fetch import Hosts, UrlFetcher, system_resolve
from services.gateway.media import read_media, source_of_url

pytestmark = pytest.mark.timeout(20)
PUBLIC, PRIVATE = "93.184.216.34", "10.0.0.1"


class Rebinder:
    """A name server of the attacker's: the first answer is public, all others lead inside."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        return [PUBLIC if self.asked == 1 else PRIVATE]


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def test_a_name_that_changes_its_mind_is_asked_once() -> None:
    went: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        went.append(request.url.host)
        return httpx.Response(200, content=once(b"x"))

    names = Rebinder()
    assert await UrlFetcher(names, httpx.MockTransport(answer)).fetch("http://a.example/", "f") == b"x"
    assert (names.asked, went) == (1, [PUBLIC])


async def test_a_redirect_to_the_same_name_is_checked_again() -> None:
    went: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        went.append(request.url.host)
        return httpx.Response(307, headers={"location": "/again"})

    with pytest.raises(PermissionDenied):
        await UrlFetcher(Rebinder(), httpx.MockTransport(answer)).fetch("http://a.example/", "f")
    assert went == [PUBLIC]


SPELLINGS = [
    "http://2130706433/",  # decimal
    "http://0x7f000001/",
    "http://0177.0.0.1/",  # octal
    "http://127.1/",
    "http://0/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[fe80::1%25eth0]/",
    "http://localhost/",
    "http://LOCALHOST./",
    "http://127.0.0.1:6379/",
    "http://①②⑦.0.0.1/",  # digits that normalise to ASCII
]


@pytest.mark.parametrize("url", SPELLINGS)
async def test_every_spelling_of_this_machine_is_refused(url: str) -> None:
    """With the system's own resolver, and a transport that would tell if anything were connected to."""

    def answer(request: httpx.Request) -> httpx.Response:
        raise AssertionError(f"connected to {request.url.host}")

    with pytest.raises((PermissionDenied, InvalidInput)):
        await UrlFetcher(system_resolve, httpx.MockTransport(answer)).fetch(url, "f")


@pytest.mark.parametrize(
    "url",
    [
        "http://good.example@10.0.0.1/",
        "http://good.example:80@10.0.0.1/",
        "http://10.0.0.1#@good.example/",
        "http://10.0.0.1\\@good.example/",
        "http:///10.0.0.1/",
        "http://good.example%2f@10.0.0.1/",
        "http://good.example\t@10.0.0.1/",
        "http://good.example\r\nhost: inner/",
        "gopher://10.0.0.1/",
        "http:10.0.0.1",
    ],
)
async def test_tricks_with_users_and_separators(url: str) -> None:
    """Whatever the URL is taken to mean, only the address that was checked would be connected to."""

    async def resolve(host: str, port: int) -> list[str]:
        return [PUBLIC] if host == "good.example" else [PRIVATE]

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.host == PUBLIC
        return httpx.Response(200, content=once(b"the public one"))

    fetcher = UrlFetcher(resolve, httpx.MockTransport(answer))
    with suppress(PermissionDenied, InvalidInput):
        assert await fetcher.fetch(url, "f") == b"the public one"


@pytest.mark.parametrize(
    ("allowed", "host", "good"),
    [
        ((), "any.example", True),
        (("img.example",), "img.example", True),
        (("img.example",), "IMG.EXAMPLE.", True),
        (("img.example",), "a.img.example", False),
        (("img.example",), "img.example.evil.example", False),
        (("img.example",), "notimg.example", False),
        (("*.cdn.example",), "a.b.cdn.example", True),
        (("*.cdn.example",), "cdn.example", False),
        (("*.cdn.example",), "evilcdn.example", False),
        (("img.example", "*.cdn.example"), "x.cdn.example", True),
    ],
)
def test_allowed_hosts(allowed: tuple[str, ...], host: str, good: bool) -> None:
    assert (host in Hosts(allowed)) is good


async def test_allowed_hosts_hold_for_redirects() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return [PUBLIC]

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"location": "https://elsewhere.example/"})

    fetcher = UrlFetcher(resolve, httpx.MockTransport(answer), Hosts(["img.example"]))
    with pytest.raises(PermissionDenied, match=r"elsewhere\.example"):
        await fetcher.fetch("https://img.example/a.png", "f")


# --- real servers that misbehave; their loopback address passes for a public one ---


@asynccontextmanager
async def misbehaving(*pieces: bytes, pause_s: float = 0.0) -> AsyncIterator[str]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause_s)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://bad.example:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


async def here(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


@pytest.fixture
def at_large(monkeypatch: pytest.MonkeyPatch) -> UrlFetcher:
    monkeypatch.setattr(fetch, "is_public", lambda address: True)
    monkeypatch.setattr(fetch, "FETCH_S_MAX", 0.5)
    monkeypatch.setattr(fetch, "FETCH_BYTES_MAX", 100_000)
    return UrlFetcher(here)


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("pieces", "pause_s", "error"),
    [
        ((OK + b"\r\n", *[b"x"] * 100), 0.05, InvalidInput),  # a byte now and then
        ((b"HTTP/1.1 200 OK\r\nx: y\r\n" * 1, *[b"a: b\r\n"] * 100), 0.05, InvalidInput),  # headers without end
        ((OK, *[b"a: " + b"b" * 60_000 + b"\r\n"] * 10), 0.0, InvalidInput),  # headers too large
        ((OK + b"content-length: 5\r\n\r\n", b"abc"), 0.0, InvalidInput),  # cut short
        ((OK + b"content-length: 1000000\r\n\r\n", *[b"x" * 60_000] * 20), 0.0, PayloadTooLarge),
        (
            (OK + b"transfer-encoding: chunked\r\n\r\n", *[b"ea60\r\n" + b"x" * 60_000 + b"\r\n"] * 20),
            0.0,
            PayloadTooLarge,
        ),
        ((b"not http at all\r\n\r\n",), 0.0, InvalidInput),
    ],
    ids=["slow body", "endless headers", "huge headers", "cut short", "huge", "huge in chunks", "not HTTP"],
)
async def test_misbehaving_servers(
    at_large: UrlFetcher, pieces: tuple[bytes, ...], pause_s: float, error: type[HeadraceError]
) -> None:
    async with misbehaving(*pieces, pause_s=pause_s) as url:
        with pytest.raises(error):
            await at_large.fetch(url, "f")


async def test_a_compressed_bomb_is_not_inflated(at_large: UrlFetcher) -> None:
    """A megabyte of zeros in a kilobyte: the compressed bytes are what is fetched, and they are no picture."""
    bomb = gzip.compress(bytes(10_000_000))
    head = OK + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb)
    async with misbehaving(head + bomb) as url:
        assert await at_large.fetch(url, "f") == bomb
    with pytest.raises(InvalidInput, match="not an image"):
        await probe("image", bomb)


async def test_no_more_than_so_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And who waits for a turn does not wait for ever."""
    monkeypatch.setattr(fetch, "FETCH_S_MAX", 0.5)
    open_now, most = 0, 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        try:
            await asyncio.sleep(0.2)
        finally:  # its time may be over before
            open_now -= 1
        return httpx.Response(200, content=once(b"x"))

    async def resolve(host: str, port: int) -> list[str]:
        return [PUBLIC]

    fetcher = UrlFetcher(resolve, httpx.MockTransport(answer))
    done = await asyncio.gather(*(fetcher.fetch("http://a.example/", "f") for _ in range(30)), return_exceptions=True)
    assert most == fetch.FETCHES_MAX
    assert {type(one) for one in done} == {bytes, InvalidInput}


# --- what stands behind the URL, or inline ---


async def probe(kind: str, data: bytes) -> None:
    await read_media([MediaSource(kind, "f", data=data)], fetch.NoFetcher(), family("smollm2-135m"))


def png(width: int, height: int) -> bytes:
    """Only a header and an end: no pixel of it has to exist."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def text_bomb() -> bytes:
    """A small picture whose compressed comment is 100 MB long."""
    out, info = io.BytesIO(), PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 100_000_000, zip=True)
    Image.new("RGB", (4, 4)).save(out, "PNG", pnginfo=info)
    return out.getvalue()


@pytest.mark.parametrize(
    ("kind", "data", "why"),
    [
        ("image", png(60_000, 60_000), "pixels"),
        ("image", png(2**31 - 1, 2**31 - 1), "pixels"),
        ("image", png(50_000_001, 1), "pixels"),
        ("image", b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + bytes(20), "pixels|image"),
        ("image", b"<svg xmlns='http://www.w3.org/2000/svg'><image href='http://10.0.0.1/'/></svg>", "not an image"),
        ("video", b"#EXTM3U\n#EXTINF:1,\nhttp://10.0.0.1/a.ts\n", "not a video"),
        ("audio", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "not audio"),
        ("video", b"ffconcat version 1.0\nfile '/etc/passwd'\n", "not a video"),
    ],
    ids=["600 gigapixels", "2^62 pixels", "a line", "GIF", "SVG", "HLS", "a playlist", "concat"],
)
async def test_what_a_header_may_not_claim(kind: str, data: bytes, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        await probe(kind, data)


async def test_a_text_bomb_in_a_picture() -> None:
    """Refused or read without inflating it: never 100 MB for a comment."""
    data = text_bomb()
    assert len(data) < 200_000
    tracemalloc.start()
    with suppress(InvalidInput):
        await probe("image", data)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 20_000_000


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a/b", "//10.0.0.1/", "javascript:1", "DATA:image/png,x"])
def test_other_schemes(url: str) -> None:
    with pytest.raises(InvalidInput):
        source_of_url("image", url, "f")
