"""The endpoints that answer, and GET /v1/requests/{id}/events: from headers and body to a reply, as raw ASGI apps."""

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from headrace.core.errors import HeadraceError, InvalidInput, PayloadTooLarge
from services.gateway.ask import Caller
from services.gateway.asking import Question
from services.gateway.auth import asking
from services.gateway.front import Front
from services.gateway.http_reply import (
    Disconnects,
    Headers,
    HttpReply,
    Receive,
    Send,
    Style,
    discard,
    read_body,
    send_error,
)
from services.gateway.ids import checked_id
from services.gateway.readings import ChatShape

Scope = dict[str, Any]
Reader = Callable[[bytes, Mapping[bytes, bytes], str], Question]  # of body, headers and idempotency key


def caller_of(front: Front, headers: dict[bytes, bytes]) -> Caller:
    """Raises Unauthenticated, PermissionDenied."""
    get = headers.get
    key = asking(front.keys, get(b"authorization", b"").decode("latin-1"))
    return Caller(
        tenant=key.tenant,
        received_s=time.time(),
        arrived_s=time.monotonic(),
        traceparent=get(b"traceparent", b"").decode("latin-1"),
        trace=get(b"x-headrace-trace") == b"1",
        key=key,
        again=get(b"x-stainless-retry-count", b"0") != b"0",
    )


def wants_extras(headers: dict[bytes, bytes]) -> bool:
    return headers.get(b"x-headrace-timeline") == b"1" or headers.get(b"x-headrace-trace") == b"1"


def key_of(headers: dict[bytes, bytes]) -> str:
    return (headers.get(b"idempotency-key") or headers.get(b"x-request-id") or b"").decode("latin-1")


class AnswerRoute:
    """An endpoint that answers: its body in, its response out."""

    def __init__(self, front: Front, disconnects: Disconnects, question: Reader) -> None:
        self._front = front
        self._disconnects = disconnects
        self._question = question

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        echo: Headers = []
        try:
            caller = caller_of(self._front, headers)
            question = self._question(await read_body(receive, headers), headers, key_of(headers))
            model = self._front.models.family(question.asks[0].model).spec.name
            with self._front.tracer.request(caller, model) as trace:
                lives = await self._front.admission.admit_all(question.asks, caller, trace.traceparent)
                trace.follow(lives[0])
                echo.append((b"x-request-id", lives[0].facts.id.encode()))
                style = Style(question.stream, wants_extras(headers), 0, trace.trace_id, question.answers)
                shape = question.shape(self._front, lives)
                await HttpReply(self._front, self._disconnects, lives, shape, style, send).run(receive)
        except HeadraceError as error:
            self._front.gateway.metrics.refused[error.code] += 1
            if isinstance(error, PayloadTooLarge) and error.field == "body":
                await discard(receive, headers)
            await send_error(send, error, echo)


class EventsRoute:
    """Attach: the same events as the first reader got, from next_index on."""

    def __init__(self, front: Front, disconnects: Disconnects) -> None:
        self._front = front
        self._disconnects = disconnects

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        try:
            caller = caller_of(self._front, headers)
            request_id = checked_id(scope["path_params"]["request_id"])
            next_index = _next_index(scope["query_string"])
            live = await self._front.find(request_id, caller.tenant)
            style, shape = Style(True, wants_extras(headers), next_index), ChatShape(self._front, live, True)
            await HttpReply(self._front, self._disconnects, (live,), shape, style, send).run(receive)
        except HeadraceError as error:
            await send_error(send, error, [])


def _next_index(query: bytes) -> int:
    found = re.search(r"(?:^|&)next_index=([^&]*)", query.decode("latin-1"))
    text = found.group(1) if found else "0"
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise InvalidInput("next_index is not a number of tokens", field="next_index")
    return int(text)
