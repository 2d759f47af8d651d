"""One line of a batch as an ordinary request: posted to its endpoint inside this process, in its tenant's name.

The endpoint sees HTTP as from a client; what admits the request gets the batch's class and the batch's deadline.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from headrace.core.access import ASKING, Key
from headrace.core.errors import HeadraceError
from headrace.mesh.logs import get_logger
from services.gateway import render
from services.gateway.admission import Admission
from services.gateway.ask import Ask, Caller
from services.gateway.auth import Keys
from services.gateway.chat_route import AnswerRoute, Reader
from services.gateway.front import Front
from services.gateway.http_reply import Disconnects, Message, Receive, Send
from services.gateway.live import Live
from services.gateway.render import FINISHED
from services.gateway.routes import ANSWERS
from services.gateway.targets import Targets

log = get_logger("batches")

Asgi = Callable[[dict[str, Any], Receive, Send], Coroutine[Any, Any, None]]

Endpoint = Callable[[Front, Disconnects], Asgi]


def _answering(question: Reader) -> Endpoint:
    return lambda front, disconnects: AnswerRoute(front, disconnects, question)


# What a batch may post to, beside what the desk is given: everything that answers.
ENDPOINTS: Mapping[str, Endpoint] = {path: _answering(question) for path, question in ANSWERS.items()}


@dataclass(frozen=True, slots=True)
class Terms:
    """In whose name, in which class, and until when."""

    tenant: str
    slo_class: str
    deadline_s: float
    key: str = ""  # id of the API key on whose account it goes; empty: nobody's


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[bytes, bytes]
    body: bytes

    @property
    def request_id(self) -> str:
        return self.headers.get(b"x-request-id", b"").decode("latin-1")

    @property
    def retry_after_s(self) -> float:
        """0: it does not say."""
        told = self.headers.get(b"retry-after-ms", b"")
        return int(told) / 1e3 if told.isdigit() else 0.0


class _OneCaller(Keys):
    """Whoever asks is who made the batch: within that key's limits, and as long as it is good."""

    def __init__(self, inner: Keys, terms: Terms) -> None:
        super().__init__()
        self._inner = inner
        self._terms = terms

    def find(self, authorization: str) -> Key:
        """Raises Unauthenticated: the key has been revoked or is over."""
        if self._terms.key:
            return self._inner.named(self._terms.key)
        return Key("", b"", self._terms.tenant, ASKING)


class _InClass(Admission):
    """Admits for a batch: in its class and not before it, until its deadline, whether or not this gateway lives on."""

    def __init__(self, inner: Admission, terms: Terms) -> None:
        self._inner = inner
        self._terms_of_batch = terms
        self.lives: list[Live] = []

    def __getattr__(self, name: str) -> Any:
        """All else is the gateway's own."""
        return getattr(self._inner, name)

    def check_beside(self, caller: Caller) -> None:
        """A batch may hold whatever its endpoint takes."""

    async def admit(self, ask: Ask, caller: Caller, traceparent: str = "", prefix: str = "") -> Live:
        live = await self._inner.admit(self._mine(ask), caller, traceparent, prefix)
        self.lives.append(live)
        return live

    async def admit_several(
        self, asks: Sequence[Ask], caller: Caller, traceparent: str = "", prefix: str = ""
    ) -> list[Live]:
        mine = {id(ask): self._mine(ask) for ask in asks}  # what was one object stays one
        lives = await self._inner.admit_several([mine[id(ask)] for ask in asks], caller, traceparent, prefix)
        self.lives += lives
        return lives

    def _mine(self, ask: Ask) -> Ask:
        terms = self._terms_of_batch
        left_s = max(0.001, terms.deadline_s - time.time())
        return replace(
            ask,
            slo_class=terms.slo_class,
            timeout_s=min(ask.timeout_s or left_s, left_s),
            targets=Targets(flow=ask.targets.flow),
            keep_on_disconnect=True,
        )


class Errand:
    """post() once."""

    def __init__(self, front: Front, disconnects: Disconnects, path: str, endpoint: Endpoint, terms: Terms) -> None:
        self._gateway = front.gateway
        self._admission = _InClass(front.admission, terms)
        posing = replace(front, keys=_OneCaller(front.keys, terms), admission=self._admission)
        self._app = endpoint(posing, disconnects)
        self._path = path

    async def post(self, body: bytes, key: str) -> Reply:
        """key: the same key with the same body is the same request, here or at any other gateway."""
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"idempotency-key", key.encode()),
        ]
        scope = {"type": "http", "method": "POST", "path": self._path, "query_string": b"", "headers": headers}
        begun: dict[str, Any] = {}
        parts: list[bytes] = []
        unread, over = [body], asyncio.Event()

        async def receive() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            await over.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                begun.update(message)
            else:
                parts.append(message["body"])

        answering = asyncio.ensure_future(self._app(scope, receive, send))
        try:
            await asyncio.wait({answering})
        finally:
            over.set()
            answering.cancel()
        if (bug := answering.exception()) is not None:  # as to a client: this line's error, and nobody else's
            log.failure("line_broke", bug, key=key)
            return Reply(500, {}, render.error_json(HeadraceError("the server failed")))
        return Reply(begun["status"], dict(begun["headers"]), b"".join(parts))

    @property
    def ended_badly(self) -> bool:
        """It was accepted and is over without an answer: the same key would only be told so again."""
        ends = [live.end for live in self._admission.lives]
        return any(end is not None and end.reason not in FINISHED for end in ends)

    def cancel(self) -> None:
        for live in self._admission.lives:
            if live.end is None:
                self._gateway.cancel(live)
