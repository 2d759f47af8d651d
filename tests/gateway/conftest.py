"""A real gateway, HTTP and gRPC on free ports, over a real NATS; the rest of the cell is a stand-in."""

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import httpx
import pytest

from headrace.core.slo import BUILT_IN, Classes
from headrace.engines.families import family
from headrace.mesh import rpc
from headrace.mesh.bus import Bus
from headrace.mesh.config import Settings
from headrace.mesh.journal import Journal
from headrace.v1.gateway_pb2_grpc import add_GatewayServiceServicer_to_server
from services.gateway.admission import Terms
from services.gateway.auth import Keys
from services.gateway.fetch import NoFetcher
from services.gateway.front import Front, Parts
from services.gateway.limits import Limiter
from services.gateway.media import Fetcher
from services.gateway.models import Models
from services.gateway.routes import bind, http_server
from services.gateway.rpc import GatewayServicer
from services.gateway.tracing import Tracer
from tests.gateway.standin import StandIn


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Polls: what is waited for happens in another task, which knows nothing of tests."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class MemoryBlobs:
    def __init__(self) -> None:
        self.stored: dict[str, list[bytes]] = {}

    async def put(self, request_id: str, data: bytes) -> str:
        self.stored.setdefault(request_id, []).append(data)
        return hashlib.sha256(data).hexdigest()

    async def drop(self, request_id: str) -> None:
        self.stored.pop(request_id, None)


@dataclass
class Edge:
    """One running gateway and how to reach it."""

    front: Front
    blobs: MemoryBlobs
    http: httpx.AsyncClient
    url: str
    grpc: str


@dataclass
class Options:
    keys: Keys = field(default_factory=Keys)
    fetcher: Fetcher = field(default_factory=NoFetcher)
    models: tuple[str, ...] = ("profile-tiny",)
    classes: Classes = BUILT_IN
    early_rejection: bool = True
    limiter: Limiter = field(default_factory=Limiter)


@dataclass
class Edges:
    """The cell of a test: more gateways on demand."""

    url: str
    cell: StandIn
    stack: AsyncExitStack
    settings: Settings

    async def start(self, name: str = "gw-a", options: Options | None = None) -> Edge:
        options = options or Options()
        bus = await Bus.connect(self.url, name)
        self.stack.push_async_callback(bus.close)
        journal, blobs = await Journal.open(bus, self.settings), MemoryBlobs()
        models = Models([family(model) for model in options.models])
        terms = Terms(models, options.classes, options.early_rejection)
        tracer = Tracer(None, 0.0)
        parts = Parts(bus, journal, blobs, terms, options.keys, options.fetcher, tracer, options.limiter)
        front = Front.of(name, parts)
        await front.gateway.start()
        sock = bind("127.0.0.1:0")
        await self._serve_http(front, sock)
        servicer = GatewayServicer(front)
        running = await rpc.serve(
            "127.0.0.1:0",
            lambda server: add_GatewayServiceServicer_to_server(servicer, server),  # type: ignore[no-untyped-call]
            ["headrace.v1.GatewayService"],
        )
        self.stack.push_async_callback(running.stop, 0.0)
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        client = await self.stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=20.0))
        if not self.cell.silent:
            await until(lambda: front.gateway.cell is not None)
        return Edge(front, blobs, client, url, f"127.0.0.1:{running.port}")

    async def _serve_http(self, front: Front, sock: socket.socket) -> None:
        server = http_server(front)
        task = asyncio.ensure_future(server.serve(sockets=[sock]))

        async def stop() -> None:
            server.should_exit = True
            front.gateway.closing = True
            await task

        self.stack.push_async_callback(stop)


@pytest.fixture
async def edges(nats_url: str) -> AsyncIterator[Edges]:
    settings = Settings(nats_url=nats_url)
    async with AsyncExitStack() as stack:
        bus = await Bus.connect(nats_url, "standin")
        stack.push_async_callback(bus.close)
        cell = StandIn(bus, await Journal.open(bus, settings))
        await cell.start()
        stack.push_async_callback(cell.stop)
        yield Edges(nats_url, cell, stack, settings)


@pytest.fixture
async def edge(edges: Edges) -> Edge:
    return await edges.start()


@pytest.fixture
def cell(edges: Edges) -> StandIn:
    return edges.cell
