"""Core NATS: publish, subscribe with plain functions, ask and answer. The only place that knows the connection.

Messages go out once per loop tick; replies of all kinds come back through one wildcard subscription and a
dict, and one timer ends those that never come. It reconnects for ever and restores its subscriptions.
"""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.nuid import NUID

from headrace.mesh import nats_wire
from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup, BusDown, NoResponder, Uncertain
from headrace.mesh.login import NatsLogin, shown
from headrace.mesh.logs import get_logger
from headrace.mesh.quorum import Quorum

Handler = Callable[[bytes, Mapping[str, str]], None]
Answer = Callable[[bytes], Awaitable[bytes]]
StateWatcher = Callable[[bool], None]

CONNECT_WAIT_S = 10.0  # a launcher starts everything at once; longer than NATS needs to open its journal
PING_S, PINGS_LOST = 2.0, 2  # a server that hangs is noticed in about 6 s
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.05, 1.0
FLUSH_WAIT_S = 5.0
GIVE_UPS, GIVE_UP_S = 10, 0.2  # a connection that never came is let go within 2 s
SWEEP_S = 0.1  # how late a time-out may be told
MAX_WAITING = 65_536  # replies waited for: far above any admission limit
MAX_UNSENT_BYTES = 64 << 20  # what NATS itself lets a client lag behind
MAX_ANSWERING = 256  # answers computed at once

NO_LOGIN = NatsLogin()
_log = get_logger("bus")


@dataclass(frozen=True, slots=True)
class Reply:
    head: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class _Waiting:
    future: asyncio.Future[Reply]
    deadline_s: float
    subject: str


class Subscription:
    """Handle of one subscription; it survives reconnects until unsubscribed."""

    def __init__(self, bus: "Bus", inner: Any) -> None:
        self._bus = bus
        self._inner = inner

    async def unsubscribe(self) -> None:
        self._bus.forget(self._inner)
        if not self._bus.closed:
            await self._inner.unsubscribe()


class Bus:
    def __init__(self, client: Client, name: str, login: NatsLogin = NO_LOGIN) -> None:
        self.name = name
        self._login = login
        self.up = False
        self.closed = False
        self._client: Any = client  # its insides are used: the version is pinned, the tests drive each use
        self._reader = nats_wire.Reader(self, self._on_handler_failure)
        self._watchers: list[StateWatcher] = []
        self._out: list[bytes] = []
        self._inbox = self.new_inbox() + "."
        self._inbox_at = len(self._inbox)
        self._next_token = 0
        self._waiting: dict[bytes, _Waiting] = {}
        self._sweeping = False
        self._answering: set[asyncio.Task[None]] = set()
        self._leaving: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._quorum = Quorum(1, self._leave)

    @staticmethod
    async def open(settings: Settings, name: str) -> "Bus":
        """As connect, with the credentials and certificates of the settings."""
        return await Bus.connect(settings.nats_url, name, login=NatsLogin.of(settings))

    @staticmethod
    async def connect(url: str, name: str, on_state: StateWatcher | None = None, login: NatsLogin = NO_LOGIN) -> "Bus":
        """url: one server or all of a cluster, separated by commas. Raises BadSetup if none answers."""
        client = Client()
        bus = Bus(client, name, login)
        bus._quorum = Quorum(len(url.split(",")), bus._leave)
        if on_state is not None:
            bus.watch(on_state)
        bus._client._ps = bus._reader
        connecting = asyncio.ensure_future(client.connect(**bus._options(url)))
        try:
            await asyncio.wait({connecting}, timeout=CONNECT_WAIT_S)
            if not connecting.done():
                raise TimeoutError
            connecting.result()
        except (TimeoutError, OSError, nats.errors.Error) as error:
            why = client.last_error or error
            bus.closed = True
            await _give_up(client, connecting)
            raise BadSetup(
                f"cannot reach NATS at {shown(url)} ({why!r}): is it running? see HEADRACE_NATS_URL"
            ) from error
        bus._set_state(True)
        bus._quorum.heard(bus.server_info)
        await bus._subscribe_raw(bus._inbox + "*", bus._on_reply)
        return bus

    def _options(self, url: str) -> dict[str, Any]:
        return {
            "servers": [part.strip() for part in url.split(",")],
            "name": self.name,
            "error_cb": self._on_client_error,
            "disconnected_cb": self._on_disconnected,
            "reconnected_cb": self._on_reconnected,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": BACKOFF_MIN_S,
            "reconnect_to_server_handler": _choose_server,
            "ping_interval": PING_S,
            "max_outstanding_pings": PINGS_LOST,
            **self._login.options(),
        }

    def new_inbox(self) -> str:
        """A subject that nobody else listens on."""
        return self._login.inbox + NUID().next().decode()

    @property
    def server_info(self) -> Mapping[str, Any]:
        """What the server said of itself: version, jetstream, max_payload ..."""
        return dict(self._client._server_info)

    # --- out ---

    def send(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Publishes with this loop tick's other messages. Raises BusDown while there is no connection."""
        if headers:
            self._put(nats_wire.publish_frame_with_head(subject, "", nats_wire.header_block(headers), data))
        else:
            self._put(nats_wire.publish_frame(subject, "", data))

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """send(), and waits while the server is slow to take what is on its way."""
        self.send(subject, data, headers)
        if self._unsent_bytes() > MAX_UNSENT_BYTES // 2:
            await self._drain()

    def _put(self, frame: bytes) -> None:
        if not self.up:
            raise BusDown("NATS cannot be reached", retry_after_s=1.0)
        if not self._out:
            self._loop.call_soon(self._write)
        self._out.append(frame)

    def _write(self) -> None:
        """Core NATS may lose any message: what is here when the connection goes is dropped."""
        out, self._out = self._client._pending + self._out, []  # nats-py's own (SUB, PONG) keep their place
        self._client._pending, self._client._pending_data_size = [], 0
        if not out or not self.up or self._gone():
            return
        if self._unsent_bytes() > MAX_UNSENT_BYTES:
            _log.error("outbound_buffer_full", lost=len(out))
            return
        self._client._transport.write(b"".join(out) if len(out) > 1 else out[0])

    def _gone(self) -> bool:
        """The connection is closed and nobody has been told yet."""
        writer = self._client._transport and self._client._transport._io_writer
        return writer is None or writer.transport.is_closing()

    def _unsent_bytes(self) -> int:
        writer = self._client._transport and self._client._transport._io_writer
        return int(writer.transport.get_write_buffer_size()) if writer else 0

    async def _drain(self) -> None:
        try:
            await self._client._transport.drain()
        except OSError as error:
            raise BusDown(f"NATS was lost: {error}", retry_after_s=1.0) from error

    # --- in ---

    async def subscribe(self, subject: str, handler: Handler) -> Subscription:
        """handler runs on the loop for each message, in order; it must not block and must not raise."""

        def on_message(_subject: bytes, _reply: bytes, head: bytes, data: bytes) -> None:
            handler(data, nats_wire.parse_headers(head) if head else nats_wire.EMPTY_HEADERS)

        return await self._subscribe_raw(subject, on_message)

    async def subscribe_raw(self, subject: str, handler: nats_wire.RawHandler) -> Subscription:
        """The same with subject, reply subject and unparsed header block: for the journal's reader."""
        return await self._subscribe_raw(subject, handler)

    async def _subscribe_raw(self, subject: str, handler: nats_wire.RawHandler) -> Subscription:
        never: asyncio.Future[Any] = self._loop.create_future()  # nats-py then starts no task and keeps no queue
        inner = await self._client.subscribe(subject, future=never)
        self._reader.handlers[b"%d" % inner._id] = handler
        self._write()
        return Subscription(self, inner)

    def forget(self, inner: Any) -> None:
        self._reader.handlers.pop(b"%d" % inner._id, None)

    # --- ask and answer ---

    async def request(self, subject: str, data: bytes, timeout_s: float) -> bytes:
        """Raises NoResponder at once if nobody listens, Uncertain if no answer comes, BusDown if it cannot be sent."""
        reply = await self.call(subject, data, timeout_s=timeout_s)
        return reply.data

    def call(self, subject: str, data: bytes, *, timeout_s: float, head: bytes = b"") -> asyncio.Future[Reply]:
        """Sends with a reply subject; the future ends with the reply, NoResponder or Uncertain. No task, no timer."""
        if len(self._waiting) >= MAX_WAITING:
            raise BusDown("too many replies are waited for", retry_after_s=1.0)
        self._next_token += 1
        token = f"{self._next_token:x}"
        reply = self._inbox + token
        if head:
            self._put(nats_wire.publish_frame_with_head(subject, reply, head, data))
        else:
            self._put(nats_wire.publish_frame(subject, reply, data))
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting[token.encode()] = _Waiting(future, time.monotonic() + timeout_s, subject)
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_S, self._sweep)
        return future

    def _on_reply(self, subject: bytes, _reply: bytes, head: bytes, data: bytes) -> None:
        waiting = self._waiting.pop(subject[self._inbox_at :], None)
        if waiting is None or waiting.future.done():
            return  # too late, or the caller was cancelled
        if head and not data and nats_wire.status(head) == 503:
            waiting.future.set_exception(NoResponder(f"nobody answers on {waiting.subject}", retry_after_s=1.0))
        else:
            waiting.future.set_result(Reply(head, data))

    def _sweep(self) -> None:
        now_s = time.monotonic()
        late = [token for token, waiting in self._waiting.items() if waiting.deadline_s <= now_s]
        for token in late:
            self._end_waiting(token, "no answer in time")
        self._sweeping = bool(self._waiting)
        if self._sweeping:
            self._loop.call_later(SWEEP_S, self._sweep)

    def _end_waiting(self, token: bytes, why: str) -> None:
        waiting = self._waiting.pop(token)
        if not waiting.future.done():
            waiting.future.set_exception(Uncertain(f"{waiting.subject}: {why}", retry_after_s=1.0))

    async def respond(self, subject: str, answer: Answer) -> Subscription:
        def on_message(_subject: bytes, reply: bytes, _head: bytes, data: bytes) -> None:
            if not reply or len(self._answering) >= MAX_ANSWERING:
                return  # the asker's time-out tells
            task = self._loop.create_task(self._answer(answer, reply.decode(), data))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

        return await self._subscribe_raw(subject, on_message)

    async def _answer(self, answer: Answer, reply: str, data: bytes) -> None:
        try:
            self.send(reply, await answer(data))
        except BusDown:
            pass  # the asker sees the same outage
        except Exception as error:  # noqa: BLE001 a process boundary, as for messages
            self._on_handler_failure(reply.encode(), error)

    # --- state ---

    def watch(self, watcher: StateWatcher) -> None:
        """watcher(up) is called after each change, on the loop."""
        self._watchers.append(watcher)

    def unwatch(self, watcher: StateWatcher) -> None:
        self._watchers.remove(watcher)

    def _set_state(self, up: bool) -> None:
        if self.up == up:
            return
        self.up = up
        if not up:
            for token in list(self._waiting):
                self._end_waiting(token, "NATS was lost before the answer came")
        for watcher in list(self._watchers):
            watcher(up)

    async def _on_disconnected(self) -> None:
        if not self.closed:
            _log.warning("nats_lost")
            self._client._current_server.reconnects += 1  # of a cluster, the others are tried first
        self._quorum.close()
        self._set_state(False)

    async def _on_reconnected(self) -> None:
        _log.warning("nats_back", server=self.server_info.get("server_name", ""))
        self._set_state(True)
        self._quorum.heard(self.server_info)

    def _leave(self) -> None:
        """This server is cut off from its cluster: another one is looked for, as if it had died."""
        if self.up and not self.closed:
            _log.warning("nats_server_alone", server=self.server_info.get("server_name", ""))
            self._leaving = self._loop.create_task(self._client.force_reconnect())

    async def _on_client_error(self, error: Exception) -> None:
        _log.info("nats_error", error=repr(error))

    def _on_handler_failure(self, subject: bytes, error: Exception) -> None:
        _log.failure("message_handler_failed", error, subject=subject.decode())

    async def flush(self) -> None:
        """Returns when the server has taken everything sent so far. Raises BusDown."""
        self._write()
        try:
            await self._client.flush(FLUSH_WAIT_S)
        except (nats.errors.Error, OSError) as error:
            raise BusDown(f"NATS was lost: {error!r}", retry_after_s=1.0) from error

    async def close(self) -> None:
        """Sends what waits to be sent, then leaves."""
        if self.closed:
            return
        self.closed = True
        self._write()
        self._quorum.close()
        for task in self._answering:
            task.cancel()
        await self._client.close()
        self._set_state(False)

    # --- what the reader asks for ---

    async def on_ping(self) -> None:
        await self._client._process_ping()

    async def on_pong(self) -> None:
        await self._client._process_pong()

    async def on_info(self, info: bytes) -> None:
        told = json.loads(info)
        await self._client._process_info(told)
        self._quorum.heard(told)

    async def on_error(self, error: str) -> None:
        """nats-py would close for good on most of these; a mesh member comes back instead."""
        _log.error("nats_refused", error=error)
        if "permissions violation" not in error.lower():
            await self._client._process_op_err(nats.errors.Error(error))


async def _give_up(client: Client, connecting: asyncio.Future[None]) -> None:
    """nats-py's wait_for swallows a cancellation now and then (Python 3.11), and then tries for ever."""
    for _ in range(GIVE_UPS):
        connecting.cancel()
        if (await asyncio.wait({connecting}, timeout=GIVE_UP_S))[0]:
            break
    closing = asyncio.ensure_future(client.close())
    await asyncio.wait({closing}, timeout=GIVE_UP_S)


def _choose_server(servers: list[Any], _info: Mapping[str, Any]) -> tuple[Any, float]:
    """The least tried server, after an exponential, jittered wait."""
    server = min(servers, key=lambda candidate: candidate.reconnects)
    wait_s = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2 ** min(server.reconnects, 10))
    return server, wait_s * random.uniform(0.5, 1.0)
