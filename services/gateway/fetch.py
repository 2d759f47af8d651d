"""Media by URL, for those who allow it: the address is resolved, checked and connected to, never resolved twice.

Off unless HEADRACE_MEDIA_URLS=on. Private, loopback, link-local and other special addresses are always refused,
and so is a redirect to one. HEADRACE_MEDIA_HOSTS says from which hosts alone; it holds for redirects too.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence

import httpx

from headrace.core.errors import InvalidInput, PayloadTooLarge, PermissionDenied

FETCH_BYTES_MAX = 32 * 1024 * 1024  # as for a part in the body
FETCH_S_MAX = 10.0  # for all redirects together: the client is waiting
REDIRECTS_MAX = 3
FETCHES_MAX = 8  # at once: a quarter of a gigabyte of memory; who waits for a turn has FETCH_S_MAX all the same
NAT64 = ipaddress.ip_network("64:ff9b::/96")
URL_CHARS_MAX = 2048

Resolve = Callable[[str, int], Awaitable[list[str]]]


class Hosts:
    """Which hosts may be fetched from: exact names, and *.name for all below a name; none said: any."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        names = [name.lower().rstrip(".") for name in allowed]
        self._exact = frozenset(name for name in names if not name.startswith("*."))
        self._below = tuple(name[1:] for name in names if name.startswith("*."))
        self._any = not names

    def __contains__(self, host: str) -> bool:
        host = host.lower().rstrip(".")
        return self._any or host in self._exact or host.endswith(self._below or ("\0",))


async def system_resolve(host: str, port: int) -> list[str]:
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in infos]


def is_public(address: str) -> bool:
    """Whether anybody on the Internet could be meant; an IPv6 address that carries an IPv4 one is judged by both."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        inner = ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or _nat64(ip)
        if inner is not None and not is_public(str(inner)):
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _nat64(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else None


ANY_HOST = Hosts()


class NoFetcher:
    """The default: a URL is an error that says how to send the bytes instead."""

    async def fetch(self, url: str, field: str) -> bytes:
        raise PermissionDenied("this gateway does not fetch media URLs; send a data: URI", field=field)


class UrlFetcher:
    def __init__(
        self,
        resolve: Resolve = system_resolve,
        transport: httpx.AsyncBaseTransport | None = None,
        hosts: Hosts = ANY_HOST,
    ) -> None:
        self._resolve = resolve
        self._hosts = hosts
        self._turns = asyncio.Semaphore(FETCHES_MAX)
        # No proxy from the environment: a proxy would connect to what was never checked. No connection is used again:
        # it belongs to an address, and was opened for one host of those that may share it.
        self._client = httpx.AsyncClient(
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            timeout=FETCH_S_MAX,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def fetch(self, url: str, field: str) -> bytes:
        """Raises InvalidInput, PermissionDenied, PayloadTooLarge: naming the field."""
        try:
            async with asyncio.timeout(FETCH_S_MAX), self._turns:
                return await self._follow(url, field)
        except TimeoutError as error:
            raise InvalidInput(f"the media URL did not answer within {FETCH_S_MAX:.0f} s", field=field) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise InvalidInput(f"the media URL cannot be fetched: {type(error).__name__}", field=field) from error

    async def close(self) -> None:
        await self._client.aclose()

    async def _follow(self, url: str, field: str) -> bytes:
        for _ in range(REDIRECTS_MAX + 1):
            target = _parse(url, field)
            request = await self._pinned(target, field)
            response = await self._client.send(request, stream=True)
            try:
                if not response.has_redirect_location:
                    return await _read(response, field)
                url = str(target.join(response.headers["location"]))
            finally:
                await response.aclose()
        raise InvalidInput(f"more than {REDIRECTS_MAX} redirects", field=field)

    async def _pinned(self, url: httpx.URL, field: str) -> httpx.Request:
        """A request to a checked address; the Host header and TLS name stay the URL's own."""
        host = url.raw_host.decode("ascii")
        if host not in self._hosts:
            raise PermissionDenied(f"media is not fetched from {host[:128]!r} here", field=field)
        port = url.port or (443 if url.scheme == "https" else 80)
        address = await self._checked_address(url.host, port, field)
        pinned = url.copy_with(host=address)
        return self._client.build_request(
            "GET",
            pinned,
            headers={"host": url.netloc.decode(), "accept-encoding": "identity"},
            extensions={"sni_hostname": url.host},
        )

    async def _checked_address(self, host: str, port: int, field: str) -> str:
        try:
            addresses = await self._resolve(host, port)
        except OSError as error:
            raise InvalidInput(f"the host {host[:128]!r} cannot be resolved", field=field) from error
        # One bad address among good ones is a trap: refuse them all.
        if not addresses or not all(is_public(address) for address in addresses):
            raise PermissionDenied("the media URL leads to an address that is not public", field=field)
        return addresses[0]


def fetcher(allowed: bool, hosts: Sequence[str] = ()) -> NoFetcher | UrlFetcher:
    return UrlFetcher(hosts=Hosts(hosts)) if allowed else NoFetcher()


def _parse(url: str, field: str) -> httpx.URL:
    if len(url) > URL_CHARS_MAX:
        raise InvalidInput(f"a media URL has at most {URL_CHARS_MAX} characters", field=field)
    parsed = httpx.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidInput("only http and https URLs with a host are fetched", field=field)
    if parsed.userinfo:
        raise InvalidInput("a media URL with a user name is not fetched", field=field)
    return parsed


async def _read(response: httpx.Response, field: str) -> bytes:
    if response.status_code != httpx.codes.OK:
        raise InvalidInput(f"the media URL answered {response.status_code}", field=field)
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > FETCH_BYTES_MAX:
            raise PayloadTooLarge(f"more than {FETCH_BYTES_MAX} bytes behind the media URL", field=field)
    return bytes(data)
