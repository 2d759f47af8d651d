"""The HTTP API: a Starlette app whose hot routes are raw ASGI, served by uvicorn on a socket bound here."""

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headrace.core.errors import HeadraceError, InvalidInput, ModelNotFound, NotFound
from headrace.engines.base import ModelSpec
from headrace.mesh.metrics import exposition
from services.gateway import bodies, chat, completions, openapi, render, responses
from services.gateway.chat_route import AnswerRoute, EventsRoute, Scope, caller_of
from services.gateway.front import Front
from services.gateway.http_reply import Disconnects, Receive, Send
from services.gateway.ids import checked_id

CHAT_PATH = "/v1/chat/completions"
ANSWERS = {CHAT_PATH: chat.question, "/v1/completions": completions.question, "/v1/responses": responses.question}
BACKLOG = 2048  # uvicorn's own: connections that arrive within one stall of the loop
KEEP_ALIVE_S = 75  # longer than the 60 s of common proxies, so that they close first


class App:
    """The hot routes before Starlette's own machinery: its layers cost 25 us a request and 2 us a token."""

    def __init__(self, answers: Mapping[str, AnswerRoute], rest: Starlette) -> None:
        self._answers = answers
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._answers.get(scope["path"])
        if answer is not None and scope["method"] == "POST":
            await answer(scope, receive, send)
        else:
            await self._rest(scope, receive, send)


Listed = Callable[[], list[bodies.Model]]


def app(front: Front, more: Sequence[Route] = (), listed: Listed = list) -> App:
    """more: of what is beside the answers: files, batches. listed: models that give none."""
    disconnects = Disconnects()
    front.gateway.on_sweep.append(disconnects.sweep)
    pages = Pages(front, listed)
    answers = {path: AnswerRoute(front, disconnects, question) for path, question in ANSWERS.items()}
    routes = [
        *[Route(path, answer, methods=["POST"]) for path, answer in answers.items()],
        Route("/v1/requests/{request_id}/events", EventsRoute(front, disconnects), methods=["GET"]),
        Route("/v1/requests/{request_id}", pages.cancel, methods=["DELETE"]),
        Route("/v1/models", pages.models),
        Route("/v1/models/{model:path}", pages.model),
        Route("/health", pages.health),
        Route("/metrics", pages.metrics),
        Route("/openapi.json", pages.openapi),
        *front.console.routes(),
        *more,
    ]
    rest = Starlette(routes=routes, exception_handlers={HTTPException: _http_error, HeadraceError: _error})
    return App(answers, rest)


class Pages:
    def __init__(self, front: Front, listed: Listed) -> None:
        self._front = front
        self._listed = listed
        self._openapi = msgspec.json.encode(openapi.document(metadata.version("headrace")))

    async def models(self, request: Request) -> Response:
        caller_of(self._front, dict(request.headers.raw))
        specs = [family.spec for family in self._front.models]
        return _json(bodies.ModelList("list", [*map(self._model, specs), *self._listed()]))

    async def model(self, request: Request) -> Response:
        caller_of(self._front, dict(request.headers.raw))
        name = request.path_params["model"]
        if not name:
            raise ModelNotFound("which model?", field="model")
        beside = next((model for model in self._listed() if model.id == name), None)
        return _json(beside or self._model(self._front.models.family(name).spec))

    def _model(self, spec: ModelSpec) -> bodies.Model:
        servable = self._front.servable(spec.name)
        return bodies.Model(spec.name, "model", 0, "headrace", spec.context_tokens, list(spec.modalities), servable)

    async def cancel(self, request: Request) -> Response:
        caller = caller_of(self._front, dict(request.headers.raw))
        request_id = checked_id(request.path_params["request_id"])
        known = await self._front.gateway.cancel_anywhere(request_id, caller.tenant)
        if not known:
            raise NotFound("no such request", field="request_id")
        return _json(bodies.Cancelled(request_id, "chat.completion.cancelled", known))

    async def health(self, request: Request) -> Response:
        if self._front.admission.draining:
            return _json(bodies.Health("draining"), 503)
        if not self._front.gateway.bus.up:
            return _json(bodies.Health("bus_down"), 503)
        if self._front.gateway.cell is None:
            return _json(bodies.Health("starting"), 503)
        return _json(bodies.Health("ok", {name: self._front.servable(name) for name in self._front.models.known}))

    async def metrics(self, request: Request) -> Response:
        self._front.keys.require(request.headers.get("authorization", ""), "metrics", "operate")
        kind, body = exposition(self._front.gateway.metrics.registry, request.headers.get("accept", ""))
        return Response(body, headers={"content-type": kind})

    async def openapi(self, request: Request) -> Response:
        return Response(self._openapi, media_type="application/json")


def _json(body: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")


async def _error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HeadraceError)
    headers = {name.decode(): value.decode() for name, value in render.error_headers(error)}
    return Response(render.error_json(error), render.http_status(error), headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = NotFound("no such path") if error.status_code == 404 else InvalidInput(error.detail)
    return Response(render.error_json(known), error.status_code, error.headers, "application/json")


class HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers: the process's lifecycle decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(address: str) -> socket.socket:
    """host:port, port 0 for any free one."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host.strip("[]"), int(port)))
    return sock


def http_server(
    front: Front, context: ssl.SSLContext | None = None, more: Sequence[Route] = (), listed: Listed = list
) -> HttpServer:
    return server_of(app(front, more, listed), context)


def server_of(answering: Callable[..., Any], context: ssl.SSLContext | None = None) -> HttpServer:
    """answering: an ASGI app."""
    config = uvicorn.Config(
        answering,
        http="httptools",
        loop="none",
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
        ssl_context_factory=None if context is None else lambda _config, _default: context,
    )
    return HttpServer(config)
