"""One request to one cell: tried at the next one while its client has not seen a byte, then passed on as it comes.

What is kept in a cell is asked there: files and batches at their owner's home, a request by its id where it went.
"""

import asyncio
import hashlib
import random
import re
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import httpx
import msgspec
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from headrace.core.cells import Door, home
from headrace.core.errors import HeadraceError, PayloadTooLarge, Unavailable
from services.gateway import render
from services.gateway.ask import BODY_BYTES_MAX

TRIES = 3  # cells that one request is tried at
CONNECT_S = 1.0  # a gateway that does not take a connection so long is not there
REMEMBERED = 100_000  # requests whose cell is known by their id; others are looked for
_BY_ID = re.compile(r"/v1/requests/([0-9a-f]{32})(/events)?")
_KEPT = ("/v1/files", "/v1/batches")
_FULL = (429, 503)  # another cell may have room
# Of one connection, not of the message (RFC 9110, 7.6.1), and what the next hop writes itself.
_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
    )
)


class _Asked(msgspec.Struct):
    model: str = ""


@dataclass(slots=True)
class Tally:
    """Of this door: what each cell was sent and answered, and what went on elsewhere."""

    answered: Counter[tuple[str, int]] = field(default_factory=Counter)  # cell, status
    elsewhere: Counter[str] = field(default_factory=Counter)  # that the cell did not answer, or had no room for


class Proxy:
    def __init__(
        self,
        door: Door,
        clients: dict[str, httpx.AsyncClient],
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """clients: of each cell's gateways, by its name."""
        self.tally = Tally()
        self._door, self._clients, self._clock, self._draw = door, clients, clock, draw
        self._went: OrderedDict[str, str] = OrderedDict()

    async def answer(self, request: Request) -> Response:
        try:
            body = await _body(request)
            return await self._answer(request, body)
        except HeadraceError as error:
            headers = {name.decode(): value.decode() for name, value in render.error_headers(error)}
            return Response(render.error_json(error), render.http_status(error), headers)

    async def models(self, request: Request) -> Response:
        """Of all cells that are there, each model once."""
        names = self._names("", 0.0)
        sent = [self._clients[name].get(request.url.path, headers=_forwarded(request)) for name in names]
        answers = [
            each for each in await asyncio.gather(*sent, return_exceptions=True) if isinstance(each, httpx.Response)
        ]
        good = [each for each in answers if each.status_code == httpx.codes.OK]
        if not good:
            if answers:
                return Response(answers[0].content, answers[0].status_code, media_type="application/json")
            raise Unavailable("no cell answers", retry_after_s=1.0)
        found: dict[str, dict[str, object]] = {}
        for answer in good:
            for model in answer.json()["data"]:
                known = found.setdefault(model["id"], model)
                known["servable"] = bool(known.get("servable")) or bool(model.get("servable"))
        return Response(
            msgspec.json.encode({"object": "list", "data": list(found.values())}), media_type="application/json"
        )

    def _names(self, model: str, draw: float) -> list[str]:
        """A model that no cell serves is asked for all the same: its gateway knows whether there is such a one.

        Raises Unavailable: no cell is heard.
        """
        order = self._door.order(model, draw, self._clock()) or self._door.order("", draw, self._clock())
        if names := [name for name in order if name in self._clients]:
            return names
        raise Unavailable("no cell is heard", retry_after_s=1.0)

    async def _answer(self, request: Request, body: bytes) -> Response:
        path = request.url.path
        if found := _BY_ID.fullmatch(path):
            return await self._find(request, body, found[1])
        if path.startswith(_KEPT):
            owner = hashlib.sha256(request.headers.get("authorization", "").encode()).hexdigest()
            return await self._try(request, body, [home(sorted(self._clients), owner)], ())
        return await self._try(request, body, self._names(_model_of(body), self._draw())[:TRIES], _FULL)

    async def _find(self, request: Request, body: bytes, request_id: str) -> Response:
        first = self._went.get(request_id, "")
        others = [name for name in self._names("", 0.0) if name != first]
        return await self._try(request, body, [first, *others] if first else others, (404,))

    async def _try(self, request: Request, body: bytes, names: Sequence[str], not_here: Sequence[int]) -> Response:
        """The first answer that is none of `not_here`, or the last one. Raises Unavailable: nobody answers."""
        for at, name in enumerate(names):
            last = at + 1 == len(names)
            self._door.sent(name)
            client = self._clients[name]
            asked = client.build_request(
                request.method,
                httpx.URL(request.url.path, query=request.url.query.encode()),
                headers=_forwarded(request),
                content=body,
            )
            try:
                answer = await client.send(asked, stream=True)
            except httpx.TransportError:
                self._door.failed(name, self._clock())
                self.tally.elsewhere[name] += 1
                continue
            if answer.status_code in not_here and not last:
                await answer.aclose()
                self.tally.elsewhere[name] += 1
                continue
            return self._passed_on(name, answer)
        raise Unavailable("no cell answers", retry_after_s=1.0)

    def _passed_on(self, name: str, answer: httpx.Response) -> Response:
        self.tally.answered[name, answer.status_code] += 1
        if request_id := answer.headers.get("x-request-id", ""):
            self._went[request_id] = name
            while len(self._went) > REMEMBERED:
                self._went.popitem(last=False)
        headers = {key: value for key, value in answer.headers.items() if key.lower() not in _HOP}
        headers["x-headrace-cell"] = name
        return StreamingResponse(_raw(answer), answer.status_code, headers, background=BackgroundTask(answer.aclose))


async def _raw(answer: httpx.Response) -> AsyncIterator[bytes]:
    """A cell that breaks off here breaks this answer off: half an answer must not look whole."""
    try:
        async for piece in answer.aiter_raw():
            yield piece
    finally:
        await answer.aclose()


async def _body(request: Request) -> bytes:
    """Raises PayloadTooLarge."""
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > BODY_BYTES_MAX:
            raise PayloadTooLarge(f"the body is larger than {BODY_BYTES_MAX} bytes", field="body")
        pieces.append(piece)
    return b"".join(pieces)


def _model_of(body: bytes) -> str:
    """Empty where it names none; what is wrong with a body is the gateway's to say."""
    try:
        return msgspec.json.decode(body, type=_Asked).model
    except msgspec.MsgspecError:
        return ""


def _forwarded(request: Request) -> list[tuple[bytes, bytes]]:
    return [(key, value) for key, value in request.headers.raw if key.decode("latin-1") not in _HOP]
