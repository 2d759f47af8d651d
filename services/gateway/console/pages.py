"""The console's routes: its files for everybody, state and switches for operators."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from headrace.core.errors import InvalidInput, PayloadTooLarge
from headrace.core.slo import Classes
from services.gateway.auth import Keys
from services.gateway.console import files
from services.gateway.console.access import authorization_of, check_own_page, operator_of
from services.gateway.console.feed import Feed
from services.gateway.console.life import life_of
from services.gateway.console.managers import Managers
from services.gateway.ids import checked_id
from services.gateway.service import Gateway

BODY_MAX = 4_096  # bytes of a command
GOVERNOR = "governor"
PRIVATE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class Command(msgspec.Struct, forbid_unknown_fields=True):
    """To the governor."""

    action: str  # set-budget, emergency or clear
    row: str = ""  # empty: every row
    budget_w: float = 0.0  # 0: none
    kind: str = ""  # of an emergency; to clear, empty: all


class Switch(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    value: str


class Console:
    def __init__(self, gateway: Gateway, keys: Keys, classes: Classes, managers: Managers) -> None:
        self.feed = Feed(gateway, classes, managers)
        self._gateway = gateway
        self._keys = keys
        self._classes = classes
        self._managers = managers
        self._files = files.read_files()

    def routes(self) -> list[Route]:
        return [
            Route("/console/api/state", self.state),
            Route("/console/api/events", self.events),
            Route("/console/api/requests/{request_id}", self.request),
            Route("/console/api/governor", self.governor, methods=["POST"]),
            Route("/console/api/switch", self.switch, methods=["POST"]),
            Route("/console", self.file),
            Route("/console/{name:path}", self.file),
        ]

    async def file(self, request: Request) -> Response:
        status, headers, body = files.answer(
            self._files, request.path_params.get("name", ""), dict(request.headers.raw)
        )
        return Response(body, status, headers)

    async def state(self, request: Request) -> Response:
        self._operator(request)
        return _json(await self.feed.snapshot())

    async def events(self, request: Request) -> Response:
        self._operator(request)
        lines = self._lines()
        first = await anext(lines)  # a refusal is an answer of its own, not the end of a stream

        async def all_of_them() -> AsyncIterator[bytes]:
            yield first
            async for line in lines:
                yield line

        return StreamingResponse(all_of_them(), headers=PRIVATE, media_type="text/event-stream")

    async def _lines(self) -> AsyncIterator[bytes]:
        with self.feed.listening():
            async for name, value in self.feed.follow():
                yield b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(value))

    async def request(self, request: Request) -> Response:
        self._operator(request)
        request_id = checked_id(request.path_params["request_id"])
        return _json(await life_of(self._gateway, self._managers, self._classes, self.feed.tally, request_id))

    async def governor(self, request: Request) -> Response:
        who = self._changing(request)
        command = await _read(request, Command)
        match command.action:
            case "set-budget":
                await self._managers.set_budget(command.row, command.budget_w, who)
            case "emergency":
                await self._managers.declare(command.kind, who)
            case "clear":
                await self._managers.clear(command.kind, who)
            case _:
                raise InvalidInput("action: must be set-budget, emergency or clear", field="action")
        await self.feed.ask_now()
        return _json(await self.feed.snapshot())

    async def switch(self, request: Request) -> Response:
        who = self._changing(request)
        switch = await _read(request, Switch)
        if switch.name == GOVERNOR:
            await self._managers.set_mode(switch.value, who)
        else:
            await self._managers.switch(switch.name, switch.value, who)
        await self.feed.ask_now()
        return _json(await self.feed.snapshot())

    def _operator(self, request: Request) -> str:
        peer = request.client.host if request.client is not None else ""
        headers = dict(request.headers.raw)
        who = operator_of(self._keys, headers, peer)
        self._managers.speak_for(authorization_of(headers))
        return who

    def _changing(self, request: Request) -> str:
        """The operator's name and where they said it."""
        who = self._operator(request)
        check_own_page(dict(request.headers.raw))
        return f"{who} at {self._gateway.name}"


async def _read(request: Request, kind: type[Any]) -> Any:
    """Raises InvalidInput, PayloadTooLarge."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_MAX:
            raise PayloadTooLarge(f"more than {BODY_MAX} bytes")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise InvalidInput(f"the body makes no sense: {error}") from error


def _json(body: object) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json", headers=PRIVATE)
