"""Media URLs: which addresses are ever connected to, redirects included; sizes and times bounded."""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from headrace.core.errors import HeadraceError, InvalidInput, PayloadTooLarge, PermissionDenied
from services.gateway import fetch
from services.gateway.fetch import NoFetcher, UrlFetcher, is_public

ADDRESSES = {
    "93.184.216.34": True,
    "2606:2800:220:1::1": True,
    "127.0.0.1": False,
    "127.8.8.8": False,
    "0.0.0.0": False,
    "10.0.0.1": False,
    "172.16.3.4": False,
    "192.168.1.1": False,
    "169.254.169.254": False,  # cloud metadata
    "100.64.0.1": False,  # carrier-grade NAT
    "192.0.2.1": False,
    "198.18.0.1": False,
    "224.0.0.1": False,
    "240.0.0.1": False,
    "255.255.255.255": False,
    "::1": False,
    "::": False,
    "fe80::1": False,
    "fe80::1%eth0": False,
    "fc00::1": False,
    "fd12:3456::1": False,
    "ff02::1": False,
    "::ffff:127.0.0.1": False,
    "::ffff:10.0.0.1": False,
    "64:ff9b::7f00:1": False,  # NAT64 of 127.0.0.1
    "2002:7f00:1::": False,  # 6to4 of 127.0.0.1
    "2001:db8::1": False,
}


@pytest.mark.parametrize(("address", "public"), ADDRESSES.items(), ids=ADDRESSES.keys())
def test_addresses(address: str, public: bool) -> None:
    assert is_public(address) == public


HOSTS = {
    "good.example": ["93.184.216.34"],
    "other.example": ["93.184.216.35"],
    "evil.example": ["10.0.0.1"],
    "mixed.example": ["93.184.216.34", "127.0.0.1"],
}


async def resolve(host: str, port: int) -> list[str]:
    if host in HOSTS:
        return HOSTS[host]
    if host.replace(".", "").isdigit() or ":" in host:
        return [host]
    raise OSError("no such host")


def serving(answer: Callable[[httpx.Request], httpx.Response]) -> UrlFetcher:
    return UrlFetcher(resolve, httpx.MockTransport(answer))


def redirects(request: httpx.Request) -> httpx.Response:
    """/to?<url> redirects there; anything else is an image. The connection goes to the checked address."""
    assert request.url.host in ("93.184.216.34", "93.184.216.35"), "only a checked address is connected to"
    if request.url.path == "/to":
        return httpx.Response(302, headers={"location": request.url.query.decode()})
    return httpx.Response(200, content=pieces(b"image of " + request.headers["host"].encode()))


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 7):
        yield data[at : at + 7]


FETCHES: dict[str, bytes | type[HeadraceError]] = {
    "http://good.example/a.png": b"image of good.example",
    "http://good.example:8080/a.png": b"image of good.example:8080",
    "http://good.example/to?http://other.example/b": b"image of other.example",
    "http://good.example/to?/b": b"image of good.example",
    "http://evil.example/a.png": PermissionDenied,
    "http://mixed.example/a.png": PermissionDenied,
    "http://127.0.0.1/a.png": PermissionDenied,
    "http://[::1]/a.png": PermissionDenied,
    "http://169.254.169.254/latest/meta-data/": PermissionDenied,
    "http://good.example/to?http://evil.example/b": PermissionDenied,
    "http://good.example/to?http://127.0.0.1:4222/": PermissionDenied,
    "http://good.example/to?//10.0.0.1/b": PermissionDenied,
    "http://good.example/to?file:///etc/passwd": InvalidInput,
    "http://good.example/to?http://good.example/to?http://good.example/to?http://good.example/to?x": InvalidInput,
    "http://user:secret@good.example/a.png": InvalidInput,
    "http://nowhere.example/a.png": InvalidInput,
    "http://good.example/" + "a" * 3000: InvalidInput,
}


@pytest.mark.timeout(10)
@pytest.mark.parametrize(("url", "expected"), FETCHES.items(), ids=[url[:60] for url in FETCHES])
async def test_fetches(url: str, expected: bytes | type[HeadraceError]) -> None:
    fetcher = serving(redirects)
    if isinstance(expected, bytes):
        assert await fetcher.fetch(url, "field") == expected
        return
    with pytest.raises(expected) as caught:
        await fetcher.fetch(url, "field")
    assert caught.value.field == "field"


@pytest.mark.timeout(10)
async def test_a_redirect_loop_ends() -> None:
    fetcher = serving(lambda request: httpx.Response(302, headers={"location": "http://good.example/"}))
    with pytest.raises(InvalidInput, match="redirects"):
        await fetcher.fetch("http://good.example/", "field")


@pytest.mark.timeout(10)
async def test_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "FETCH_BYTES_MAX", 1000)
    with pytest.raises(PayloadTooLarge):
        await serving(lambda request: httpx.Response(200, content=pieces(b"x" * 1001))).fetch(
            "http://good.example/", "f"
        )


@pytest.mark.timeout(10)
async def test_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        return httpx.Response(200)

    monkeypatch.setattr(fetch, "FETCH_S_MAX", 0.1)
    with pytest.raises(InvalidInput, match="did not answer"):
        await UrlFetcher(resolve, httpx.MockTransport(hang)).fetch("http://good.example/", "f")


@pytest.mark.timeout(10)
async def test_an_error_status_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="404"):
        await serving(lambda request: httpx.Response(404)).fetch("http://good.example/", "f")


async def test_fetching_is_off_by_default() -> None:
    with pytest.raises(PermissionDenied, match="data: URI"):
        await NoFetcher().fetch("http://good.example/", "f")
