"""Prometheus: values that are read when somebody scrapes, and a small HTTP server for processes that have none.

Hot paths count in plain integers; a reading looks at them. Own names start with headrace_, compatible ones
with vllm:, those of any process with process_. Who asks for OpenMetrics gets it, with exemplars.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics.exposition import ALLOWUTF8
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from headrace.mesh.errors import BadSetup

Values = Mapping[tuple[str, ...], float]  # label values -> value; () where there are no labels
OPEN_METRICS = "application/openmetrics-text"
REQUEST_WAIT_S = 5.0
HEADER_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Reading:
    """One metric: read() is called on each scrape. A counter's name ends in _total."""

    name: str
    help: str
    read: Callable[[], Values]
    labels: tuple[str, ...] = ()

    def family(self) -> Metric:
        kind = CounterMetricFamily if self.name.endswith("_total") else GaugeMetricFamily
        family = kind(self.name.removesuffix("_total"), self.help, labels=self.labels)
        for labels, value in self.read().items():
            family.add_metric(labels, value)
        return family


class Readings(Collector):
    def __init__(self, readings: Sequence[Reading]) -> None:
        self._readings = readings

    def collect(self) -> Iterable[Metric]:
        return [reading.family() for reading in self._readings]


def registry(*sources: Reading | Collector) -> CollectorRegistry:
    """A registry of its own: nothing of the process-wide default one. This process's memory and files are in it."""
    made = CollectorRegistry()
    made.register(Readings([source for source in sources if isinstance(source, Reading)]))
    for source in sources:
        if not isinstance(source, Reading):
            made.register(source)
    ProcessCollector(registry=made)
    return made


def exposition(source: CollectorRegistry, accept: str) -> tuple[str, bytes]:
    """Content type and body. accept: the header; only OpenMetrics carries exemplars, all else is the older text.

    The client library's own choice of an encoder would write vllm_x for vllm:x. Names here are legal in every version
    of the formats, so that nothing is to be escaped.
    """
    if OPEN_METRICS in accept:
        return f"{OPEN_METRICS}; version=1.0.0; charset=utf-8", generate_openmetrics(source, ALLOWUTF8)  # type: ignore[no-untyped-call]
    return CONTENT_TYPE_LATEST, generate_latest(source)


@dataclass(slots=True)
class MetricsServer:
    port: int
    _server: asyncio.Server

    async def stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()


async def serve_metrics(
    address: str, source: CollectorRegistry, context: ssl.SSLContext | None = None
) -> MetricsServer:
    """GET /metrics and GET /health on the event loop itself, so that readings need no lock."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_WAIT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_reply(head, source))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a scraper that went away comes back
        finally:
            writer.close()

    return await _listen(address, answer, context)


async def _listen(
    address: str,
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    context: ssl.SSLContext | None,
) -> MetricsServer:
    host, _, port = address.rpartition(":")
    try:
        server = await asyncio.start_server(answer, host.strip("[]"), int(port), limit=HEADER_BYTES, ssl=context)
    except OSError as error:
        raise BadSetup(f"cannot serve metrics on {address}: {error.strerror}; see HEADRACE_METRICS_ADDR") from error
    return MetricsServer(server.sockets[0].getsockname()[1], server)


def _reply(head: bytes, source: CollectorRegistry) -> bytes:
    path = head.split(b" ", 2)[1:2]
    if path == [b"/metrics"]:
        return _http("200 OK", *exposition(source, _accepted(head)))
    if path == [b"/health"]:
        return _http("200 OK", "text/plain", b"ok\n")
    return _http("404 Not Found", "text/plain", b"there are /metrics and /health\n")


def _accepted(head: bytes) -> str:
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return ",".join([value.strip().decode("latin-1") for name, _, value in lines if name.lower() == b"accept"])


def _http(status: str, kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
