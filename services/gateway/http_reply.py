"""One HTTP response over one stream: it begins at the first token or the end, so that early ends get a real status.

Raw ASGI: this is the hot route, and Starlette's StreamingResponse would cost a task group per request.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from headrace.core.errors import Cancelled, HeadraceError, InvalidInput, PayloadTooLarge
from services.gateway import bodies, render
from services.gateway.ask import BODY_BYTES_MAX
from services.gateway.front import Front
from services.gateway.live import Listener, Live

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
    include_usage: bool = False
    extras: bool = False
    next_index: int = 0
    trace_id: str = ""


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


class Disconnects:
    """Notices clients that leave: one task per response that takes longer than a moment, started by the sweep."""

    def __init__(self) -> None:
        self._young: list[tuple[Listener, Receive]] = []
        self._watching: set[asyncio.Task[None]] = set()

    def watch(self, listener: Listener, receive: Receive) -> None:
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


async def _until_gone(listener: Listener, receive: Receive) -> None:
    """ASGI says http.disconnect also after a complete response: then the listener is closed already."""
    while (await receive())["type"] != "http.disconnect":
        continue
    listener.leave()


class HttpReply:
    __slots__ = ("_chunks", "_disconnects", "_front", "_headers", "_live", "_send", "_style")

    def __init__(self, front: Front, disconnects: Disconnects, live: Live, style: Style, send: Send) -> None:
        self._front = front
        self._disconnects = disconnects
        self._live = live
        self._style = style
        self._send = send
        facts = live.facts
        self._headers: Headers = [(b"x-request-id", facts.id.encode())]
        if live.taken is not None:
            self._headers += live.taken.headers
        if style.trace_id:
            self._headers.append((b"x-headrace-trace-id", style.trace_id.encode()))

    async def run(self, receive: Receive) -> None:
        """Raises HeadraceError only while nothing has been sent."""
        style = self._style
        listener = self._front.gateway.listen(self._live, whole=not style.stream)
        self._disconnects.watch(listener, receive)
        try:
            if style.stream:
                await self._stream(listener)
            else:
                await self._whole(listener)
        finally:
            self._front.gateway.leave(listener)

    async def _whole(self, listener: Listener) -> None:
        await listener.news()
        live = self._live
        end = live.end
        if end is None:
            return  # the client has left
        if (error := render.end_error(end)) is not None:
            raise error
        told, logprobs = self._front.told_of(live), None
        if told is None:
            text = self._front.text_of(live)
            shown = "".join([text.feed(token) for token in listener.take()]) + text.finish()
        else:
            answer = told.whole(listener.take(), end.reason)
            shown, logprobs = answer.text, bodies.ChoiceLogprobs(list(answer.logprobs))
        facts, created = live.facts, int(live.received_s or time.time())
        body = render.completion(facts.id, facts.model, created, shown, end.reason, end.usage, self._extras(), logprobs)
        await send_all(self._send, 200, [*JSON_HEADERS, *self._headers], body)

    async def _stream(self, listener: Listener) -> None:
        live, style, send = self._live, self._style, self._send
        facts, created = live.facts, int(live.received_s or time.time())
        text, told = self._front.text_of(live), self._front.told_of(live)
        chunks = render.Chunks(facts.id, facts.model, created, style.include_usage)
        feed, token_event = text.feed, chunks.token
        if told is not None:
            feed, token_event = told.feed, partial(told.event, chunks)
        started, index, skip = False, 0, style.next_index
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
                shown = feed(token)
                if index >= skip:
                    out.append(token_event(shown, index == 0))
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
                headers = SSE_HEADERS + self._headers
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                started = True
            if over:
                rest = render.Rest(text.finish()) if told is None else told.finish(end.reason if end else "error")
                out += self._ending(chunks, rest, error)
            await send({"type": "http.response.body", "body": b"".join(out), "more_body": not over})
            if over:
                return

    def _ending(self, chunks: render.Chunks, rest: render.Rest, error: HeadraceError | None) -> Sequence[bytes]:
        end = self._live.end
        reason = end.reason if end is not None and error is None else "error"
        events = [chunks.terminal(reason, rest, self._extras())]
        if error is not None:
            events.append(render.event(render.error_body(error)))
        if self._style.include_usage and end is not None:
            events.append(chunks.usage(end.usage))
        return [*events, render.DONE]

    def _extras(self) -> render.Extras | None:
        if not self._style.extras:
            return None
        return render.Extras(self._live.facts.id, self._style.trace_id, self._front.timeline(self._live))
