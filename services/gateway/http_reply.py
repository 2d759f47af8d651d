"""One HTTP response over one stream: it begins at the first token or the end, so that early ends get a real status.

Raw ASGI: this is the hot route, and Starlette's StreamingResponse would cost a task group per request.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from headrace.core.errors import Cancelled, HeadraceError, InvalidInput, PayloadTooLarge
from headrace.core.types import Usage
from services.gateway import render
from services.gateway.ask import BODY_BYTES_MAX
from services.gateway.front import Front
from services.gateway.live import Listener, Live
from services.gateway.readings import Shape
from services.gateway.several import Choice, Together, news_of, together

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

BODY_S_MAX = 60.0  # a body in pieces: 64 MiB over a slow office line
# Of a refused body: one that is a photograph too many is read whole, so that its reply gets through.
DISCARD_BYTES_MAX, DISCARD_S_MAX = BODY_BYTES_MAX + 16 * 1024 * 1024, 2.0
WATCH_AFTER_S = 0.1  # most responses are over by then and need nobody to watch for a disconnect
SSE_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
JSON_HEADERS: Headers = [(b"content-type", b"application/json")]


@dataclass(frozen=True, slots=True)
class Style:
    """How the client wants to read."""

    stream: bool = True
    extras: bool = False
    next_index: int = 0
    trace_id: str = ""
    answers: int = 1  # choices that answer the same question


async def read_body(receive: Receive, headers: dict[bytes, bytes]) -> bytes:
    """Raises PayloadTooLarge, before reading what is announced as too long; Cancelled if the client leaves."""
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length) > BODY_BYTES_MAX:
        raise PayloadTooLarge(f"the body is larger than {BODY_BYTES_MAX} bytes", field="body")
    message = await receive()
    if not message.get("more_body") and message["type"] == "http.request":
        body: bytes = message["body"]
        return body
    try:
        async with asyncio.timeout(BODY_S_MAX):
            return await _rest_of_body(receive, message)
    except TimeoutError as error:
        raise InvalidInput(f"the body did not arrive within {BODY_S_MAX:.0f} s", field="body") from error


async def _rest_of_body(receive: Receive, message: Message) -> bytes:
    body = bytearray()
    while True:
        if message["type"] == "http.disconnect":
            raise Cancelled("the client left while sending its request")
        body += message.get("body", b"")
        if len(body) > BODY_BYTES_MAX:
            raise PayloadTooLarge(f"the body is larger than {BODY_BYTES_MAX} bytes", field="body")
        if not message.get("more_body"):
            return bytes(body)
        message = await receive()


async def send_all(send: Send, status: int, headers: Headers, body: bytes) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: HeadraceError, headers: Headers) -> None:
    body = render.error_json(error)
    await send_all(send, render.http_status(error), [*render.error_headers(error), *headers], body)


async def discard(receive: Receive, headers: dict[bytes, bytes]) -> None:
    """Read on a little after a refusal: closing on a client that still sends would reset the reply away."""
    if b"expect" in headers:
        return  # it waits to be asked
    left = DISCARD_BYTES_MAX
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_S_MAX):
            while left > 0 and (message := await receive()).get("more_body"):
                left -= len(message["body"])


class Reader(Protocol):
    """A Listener, or several of one response."""

    opened_s: float

    @property
    def closed(self) -> bool: ...
    def leave(self) -> None: ...


class Disconnects:
    """Notices clients that leave: one task per response that takes longer than a moment, started by the sweep."""

    def __init__(self) -> None:
        self._young: list[tuple[Reader, Receive]] = []
        self._watching: set[asyncio.Task[None]] = set()

    def watch(self, listener: Reader, receive: Receive) -> None:
        self._young.append((listener, receive))

    def sweep(self, now_s: float) -> None:
        young, self._young = self._young, []
        for listener, receive in young:
            if listener.closed:
                continue
            if now_s - listener.opened_s < WATCH_AFTER_S:
                self._young.append((listener, receive))
                continue
            task = asyncio.get_running_loop().create_task(_until_gone(listener, receive))
            self._watching.add(task)
            task.add_done_callback(self._watching.discard)


async def _until_gone(listener: Reader, receive: Receive) -> None:
    """ASGI says http.disconnect also after a complete response: then the listener is closed already."""
    while (await receive())["type"] != "http.disconnect":
        continue
    listener.leave()


class HttpReply:
    """The answer to one question: one choice, or several, each with a stream of its own."""

    __slots__ = ("_disconnects", "_front", "_headers", "_lives", "_send", "_shape", "_style")

    def __init__(
        self, front: Front, disconnects: Disconnects, lives: Sequence[Live], shape: Shape, style: Style, send: Send
    ) -> None:
        self._front = front
        self._disconnects = disconnects
        self._lives = lives
        self._shape = shape
        self._style = style
        self._send = send
        self._headers: Headers = [(b"x-request-id", lives[0].facts.id.encode())]
        if (taken := lives[-1].taken) is not None:
            self._headers += taken.headers
        if len(lives) > 1:
            self._headers.append((b"x-headrace-choices", ",".join([live.facts.id for live in lives]).encode()))
        if style.trace_id:
            self._headers.append((b"x-headrace-trace-id", style.trace_id.encode()))

    async def run(self, receive: Receive) -> None:
        """Raises HeadraceError only while nothing has been sent."""
        gateway, whole, listeners = self._front.gateway, not self._style.stream, list[Listener]()
        try:
            for live in self._lives:
                listeners.append(gateway.listen(live, whole))
            if len(listeners) == 1:
                self._disconnects.watch(listeners[0], receive)
            else:
                self._disconnects.watch(Together(listeners), receive)
            if whole:
                await self._whole(listeners)
            elif len(listeners) == 1:
                await self._stream(listeners[0])
            else:
                await self._streams(listeners)
        finally:
            for listener in listeners:
                gateway.leave(listener)

    async def _whole(self, listeners: Sequence[Listener]) -> None:
        choices, usages = list[Any](), list[Usage]()
        for index, listener in enumerate(listeners):
            await listener.news()
            end = listener.live.end
            if end is None:
                return  # the client has left
            if (error := render.end_error(end)) is not None:
                raise error
            choices.append(self._shape.reading(listener.live, index).whole(listener.take(), end.reason))
            usages.append(end.usage)
        usage = together(usages, self._style.answers)
        body = self._shape.body(choices, usage, self._extras(self._lives[0]))
        await send_all(self._send, 200, [*JSON_HEADERS, *self._headers], body)

    async def _stream(self, listener: Listener) -> None:
        live, send = self._lives[0], self._send
        reading = self._shape.reading(live, 0)
        say = reading.token
        started, index, skip = False, 0, self._style.next_index
        while True:
            error: HeadraceError | None = None
            try:
                await listener.news()
            except HeadraceError as failure:
                error = failure
            if listener.left:
                return
            out = []
            for token in listener.take():
                said = say(token, index == 0)
                if index >= skip and said:
                    out.append(said)
                index += 1
            end = live.end
            if end is not None:
                error = render.end_error(end)
            over = end is not None or error is not None
            if not (out or over):
                continue
            if not started:
                if error is not None and index == 0:
                    raise error
                await self._start(out)
                started = True
            if over:
                reason = end.reason if end is not None and error is None else "error"
                out.append(reading.terminal(reason, self._extras(live)))
                out += self._shape.closing(error, end.usage if end is not None else None)
            await send({"type": "http.response.body", "body": b"".join(out), "more_body": not over})
            if over:
                return

    async def _start(self, out: list[bytes]) -> None:
        headers = SSE_HEADERS + self._headers
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        if opening := self._shape.opening():
            out.insert(0, opening)

    async def _streams(self, listeners: Sequence[Listener]) -> None:
        """Events of several choices as they come; the last one's end is the response's."""
        choices = [Choice(one, self._shape.reading(one.live, index)) for index, one in enumerate(listeners)]
        started, failed = False, None
        async with contextlib.aclosing(news_of(choices)) as news:
            async for choice in news:
                out, error = choice.said(self._extras)
                failed = failed or error
                if choice.listener.left:
                    return
                if not started and not out:
                    continue
                if not started:
                    if error is not None and not choice.index:
                        raise error
                    await self._start(out)
                    started = True
                over = all(one.over for one in choices)
                if over:
                    out += self._shape.closing(failed, together([one.usage for one in choices], self._style.answers))
                await self._send({"type": "http.response.body", "body": b"".join(out), "more_body": not over})

    def _extras(self, live: Live) -> render.Extras | None:
        if not self._style.extras:
            return None
        return render.Extras(live.facts.id, self._style.trace_id, self._front.timeline(live))
