"""Three real nats-servers with a replicated JetStream on loopback, each reachable by its peers over lines that a test
can cut: a node is then alone, and its clients are still with it.
"""

import asyncio
import contextlib
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from headrace.mesh.servers import NatsServer, find_nats, free_port

NODES = 3
FORMED_S = 30.0  # the first election of the cluster's own leader is included
ROUTE_PING_S = 1  # a line that is silent for two of them is lost


@dataclass(slots=True)
class Line:
    """From one node to another. Held, it passes nothing on and stays open, as packets that no longer arrive."""

    target: int
    port: int = 0
    _open: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None
    _pipes: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        self._open.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])

    def hold(self) -> None:
        self._open.clear()

    def heal(self) -> None:
        self._open.set()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        for source, sink in ((reader, back), (there, writer)):
            pipe = asyncio.create_task(self._pass_on(source, sink))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                await self._open.wait()
                sink.write(data)
                await sink.drain()
        await self._open.wait()
        sink.close()


class NatsCluster:
    """`async with NatsCluster(directory) as cluster`: formed, with a leader of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._monitors = [free_port() for _ in range(NODES)]
        self._lines: dict[tuple[int, int], Line] = {}
        self.nodes: list[NatsServer] = []

    @property
    def url(self) -> str:
        return ",".join(node.url for node in self.nodes)

    async def __aenter__(self) -> Self:
        routes = [free_port() for _ in range(NODES)]
        for here in range(NODES):
            for there in range(NODES):
                if here != there:
                    line = self._lines[here, there] = Line(routes[there])
                    await line.start()
        try:
            self.nodes = [self._node(index, routes[index]) for index in range(NODES)]
            for node in self.nodes:
                await asyncio.to_thread(node.start)
            await self.until_formed()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        for node in self.nodes:
            if node.running():
                node.process and node.process.send_signal(signal.SIGCONT)  # type: ignore[func-returns-value]
            await asyncio.to_thread(node.kill)
        for line in self._lines.values():
            await line.stop()

    def _node(self, index: int, route: int) -> NatsServer:
        directory = self._directory / f"nats-{index}"
        directory.mkdir(parents=True)
        port = free_port()
        peers = [f'"nats://127.0.0.1:{self._lines[index, other].port}"' for other in range(NODES) if other != index]
        nowhere = free_port()  # what peers tell of one another is no way around the lines
        (directory / "nats.conf").write_text(f"""
server_name: n{index}
listen: "127.0.0.1:{port}"
client_advertise: "127.0.0.1:{port}"
http: "127.0.0.1:{self._monitors[index]}"
max_payload: 1MB
jetstream {{ store_dir: "{directory / "jetstream"}", max_file_store: 10GB, max_memory_store: 256MB }}
cluster {{
  name: hr
  listen: "127.0.0.1:{route}"
  advertise: "127.0.0.1:{nowhere}"
  routes: [{", ".join(peers)}]
  ping_interval: "{ROUTE_PING_S}s"
  ping_max: 2
}}
""")
        command = [str(find_nats().path), "-c", str(directory / "nats.conf")]
        return NatsServer("nats-server", command, port, directory / "nats.log")

    async def until_formed(self) -> None:
        until = time.monotonic() + FORMED_S
        async with httpx.AsyncClient(timeout=2.0) as http:
            while not all([await self._healthy(http, index) for index in range(NODES)]):
                assert time.monotonic() < until, "the cluster has not formed"
                await asyncio.sleep(0.05)

    async def _healthy(self, http: httpx.AsyncClient, index: int) -> bool:
        try:
            reply = await http.get(f"http://127.0.0.1:{self._monitors[index]}/healthz")
        except httpx.TransportError:
            return False
        return reply.status_code == 200

    async def _jsz(self, index: int) -> dict[str, Any]:
        async with httpx.AsyncClient(timeout=2.0) as http:
            told = await http.get(f"http://127.0.0.1:{self._monitors[index]}/jsz?streams=1")
        found: dict[str, Any] = told.json()
        return found

    async def leader_of(self, stream: str) -> int:
        """The node that leads a stream, asked of the nodes that run; -1: nobody says so."""
        for index, node in enumerate(self.nodes):
            if not node.running():
                continue
            with contextlib.suppress(httpx.TransportError):
                for account in (await self._jsz(index)).get("account_details", []):
                    for detail in account.get("stream_detail", []):
                        leader = detail["cluster"].get("leader", "") if detail["name"] == stream else ""
                        if leader:
                            return int(leader.removeprefix("n"))
        return -1

    # --- what a test does to it ---

    def isolate(self, index: int) -> None:
        """Nothing passes between this node and the others; its clients stay."""
        for pair, line in self._lines.items():
            if index in pair:
                line.hold()

    def heal(self) -> None:
        for line in self._lines.values():
            line.heal()

    def pause(self, index: int) -> None:
        self._signal(index, signal.SIGSTOP)

    def resume(self, index: int) -> None:
        self._signal(index, signal.SIGCONT)

    def _signal(self, index: int, number: signal.Signals) -> None:
        process = self.nodes[index].process
        assert process is not None
        process.send_signal(number)


def ids(start: int, count: int) -> list[str]:
    return [f"{number:032x}" for number in range(start, start + count)]
