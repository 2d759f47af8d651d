"""Sends what is ready at its time, whatever became of the requests before; reads the answers. One process, one loop.

Connections are kept and used again; a head and its body go out in one write.
"""

import asyncio
import contextlib
import json
import math
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import grpc.aio

from headrace.client.errors import FAILURE_KEY
from headrace.client.protocol import CHANNEL_OPTIONS
from headrace.mesh.rpc import from_rpc_error
from headrace.v1 import common_pb2, gateway_pb2, gateway_pb2_grpc
from loadtest.drills.shots import Ready, Shot
from loadtest.drills.target import Target

ANSWER_S_MAX = 180.0  # longer than any class of a drill lets an answer take
CONNECTIONS_MAX = 12_000  # of this process: below what systems let it open
BROKEN = "connection"  # as the code of an answer that was cut

_Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Gun:
    """Of one mesh. Requests go to its gateways in turn."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._tls = target.tls
        self._idle: deque[tuple[int, _Line]] = deque()
        self._turn = 0
        self._room = asyncio.Semaphore(CONNECTIONS_MAX)
        self._channels = [target.door.aio_channel(at, CHANNEL_OPTIONS) for at in target.state.grpc_addresses]
        self._stubs = [gateway_pb2_grpc.GatewayServiceStub(channel) for channel in self._channels]  # type: ignore[no-untyped-call]
        self.in_flight = 0

    async def __aenter__(self) -> "Gun":
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._idle:
            self._idle.pop()[1][1].close()
        for channel in self._channels:
            await channel.close(None)

    async def fire(self, ready: Sequence[Ready], retries: int = 0) -> list[Shot]:
        """All of them, each at its time; returns when all have ended."""
        began_s, running = time.monotonic(), list[asyncio.Task[Shot]]()
        for one in ready:
            wait_s = began_s + one.at_s - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            running.append(asyncio.create_task(self.ask(one, began_s, retries)))
        return list(await asyncio.gather(*running))

    async def ask(self, one: Ready, began_s: float, retries: int = 0, shot: Shot | None = None) -> Shot:
        """shot: to be filled in, for who looks on meanwhile."""
        shot = shot or Shot(one.at_s, one.slo_class, one.target_s, one.via)
        shot.sent_s = time.monotonic() - began_s
        self.in_flight += 1
        try:
            while True:
                await self._once(one, shot, began_s)
                if not (shot.refused and retries >= shot.tries and not math.isnan(shot.retry_after_s)):
                    return shot
                exact = not math.isnan(shot.retry_exact_s)
                await asyncio.sleep(shot.retry_exact_s if exact else shot.retry_after_s)
                shot.tries += 1
                shot.status = shot.code = shot.reason = ""
                shot.retry_after_s = shot.retry_exact_s = math.nan
        except asyncio.CancelledError:
            shot.left = True
            raise
        finally:
            self.in_flight -= 1

    async def _once(self, one: Ready, shot: Shot, began_s: float) -> None:
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                if isinstance(one.wire, bytes):
                    await self._http(one.wire, shot, began_s)
                else:
                    await self._grpc(one.wire, shot, began_s)
        except TimeoutError:
            shot.code = "no_end"
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:
            shot.code = f"{BROKEN}: {type(error).__name__}"
        shot.end_s = time.monotonic() - began_s

    # --- HTTP ---

    async def _http(self, wire: bytes, shot: Shot, began_s: float) -> None:
        async with self._room:
            self._turn += 1
            at, line = await self._line(self._turn % len(self._target.hosts))
            kept = False
            try:
                line[1].write(wire)
                kept = await self._read(line[0], shot, began_s)
            finally:
                if kept:
                    self._idle.append((at, line))
                else:
                    line[1].transport.abort()

    async def _line(self, at: int) -> tuple[int, _Line]:
        while self._idle:
            known, line = self._idle.pop()
            if not (line[0].at_eof() or line[1].is_closing()):
                return known, line
        host, port = self._target.hosts[at]
        reader, writer = await asyncio.open_connection(host, port, limit=1 << 20, ssl=self._tls)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return at, (reader, writer)

    async def _read(self, reader: asyncio.StreamReader, shot: Shot, began_s: float) -> bool:
        """Whether the connection can be used again."""
        status, headers = _head(await reader.readuntil(b"\r\n\r\n"))
        shot.status = status
        if status != "200":
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            _refusal(shot, headers, body)
            return headers.get("connection") != "close"
        done = broken = False
        while (size := int(await reader.readline(), 16)) > 0:
            chunk = await reader.readexactly(size + 2)
            if said := chunk.count(b'"content":'):
                shot.tokens += said
                if math.isnan(shot.first_s):
                    shot.first_s = time.monotonic() - began_s
            done = done or b"data: [DONE]" in chunk
            broken = broken or b'data: {"error"' in chunk
        await reader.readline()
        if broken or not done:
            shot.code = "stream_error"
        return True

    # --- gRPC ---

    async def _grpc(self, wire: gateway_pb2.GenerateRequest, shot: Shot, began_s: float) -> None:
        self._turn += 1
        call = self._stubs[self._turn % len(self._stubs)].Generate(wire, metadata=self._target.door.metadata)
        try:
            async for event in call:
                if event.WhichOneof("kind") == "delta":
                    shot.tokens += len(event.delta.tokens)
                    if math.isnan(shot.first_s):
                        shot.first_s = time.monotonic() - began_s
            shot.status = "OK"
        except grpc.aio.AioRpcError as error:
            shot.status = error.code().name
            told = from_rpc_error(error)
            shot.code = told.code
            metadata: Any = error.trailing_metadata() or ()
            trailing: dict[str, str | bytes] = dict(metadata)
            shot.reason = str(trailing.get("x-headrace-request-dropped-reason", ""))
            if told.retry_after_s:
                shot.retry_exact_s = told.retry_after_s  # google.rpc.RetryInfo
            if isinstance(packed := trailing.get(FAILURE_KEY), bytes):
                shot.retry_after_s = common_pb2.Failure.FromString(packed).retry_after_s or math.nan
        finally:
            call.cancel()


def _head(raw: bytes) -> tuple[str, Mapping[str, str]]:
    first, *rest = raw.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in rest if ": " in line)
    return first.split(" ", 2)[1], headers


def _refusal(shot: Shot, headers: Mapping[str, str], body: bytes) -> None:
    shot.code = "unreadable"
    with contextlib.suppress(ValueError, KeyError, TypeError):
        shot.code = str(json.loads(body)["error"]["code"])
    shot.reason = headers.get("x-headrace-request-dropped-reason", "")
    if "retry-after" in headers:
        shot.retry_after_s = float(headers["retry-after"])
    if "retry-after-ms" in headers:
        shot.retry_exact_s = float(headers["retry-after-ms"]) / 1e3
