"""A door listens: HTTP for clients, the bus for cells' statuses, metrics."""

import asyncio
import time

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from headrace.core.cells import SPREADS, Door
from headrace.mesh import subjects
from headrace.mesh.bus import Bus
from headrace.mesh.config import Settings
from headrace.mesh.lifecycle import Lifecycle
from headrace.mesh.metrics import Reading, registry, serve_metrics
from headrace.mesh.tls import Tls
from services.gateway.cells.hearing import Hearing
from services.gateway.cells.options import Options
from services.gateway.cells.proxy import CONNECT_S, Proxy
from services.gateway.listen import Doors
from services.gateway.routes import bind, server_of

DRAIN_S = 20.0
WRITE_S = 60.0  # of a body, to a gateway
CONNECTIONS_MAX = 4096  # to the gateways of a cell: answers under way
METHODS = ["GET", "POST", "DELETE", "HEAD"]


def app(proxy: Proxy, door: Door) -> Starlette:
    async def health(_: Request) -> Response:
        there = [known.sight.name for known in door.there(time.monotonic())]
        return JSONResponse({"status": "ok" if there else "no_cells", "cells": there}, 200 if there else 503)

    routes = [
        Route("/health", health),
        Route("/v1/models", proxy.models, methods=["GET"]),
        Route("/{path:path}", proxy.answer, methods=METHODS),
    ]
    return Starlette(routes=routes)


async def serve(name: str, bus: Bus, settings: Settings, options: Options, tls: Tls | None, life: Lifecycle) -> None:
    """Until the lifecycle says stop and open answers have ended."""
    door = Door(SPREADS[options.spread])
    hearing = Hearing(door, options.urls)
    context = tls.client_context() if tls is not None else True
    limits = httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=64)
    timeout = httpx.Timeout(None, connect=CONNECT_S, write=WRITE_S, pool=CONNECT_S)
    clients = {
        cell: httpx.AsyncClient(base_url=url, verify=context, limits=limits, timeout=timeout, trust_env=False)
        for cell, url in options.urls.items()
    }
    proxy, doors, sock = Proxy(door, clients), Doors.of(tls), bind(settings.http_addr)
    heard = await bus.subscribe_raw(
        subjects.CELL_STATUS,
        lambda subject, _reply, _head, data: hearing.on_status(subject.decode(), data, time.monotonic()),
    )
    scraped = await serve_metrics(settings.metrics_addr, _registry(name, proxy, door), doors.scraped)
    web = server_of(app(proxy, door), doors.web)
    serving = asyncio.ensure_future(web.serve(sockets=[sock]))
    host, port = sock.getsockname()[:2]
    life.ready("door", id=name, http=f"{host}:{port}")
    await life.stopping.wait()
    web.config.timeout_graceful_shutdown = int(DRAIN_S)
    web.should_exit = True
    await serving
    await heard.unsubscribe()
    await scraped.stop()
    doors.close()
    for client in clients.values():
        await client.aclose()
    await bus.close()


def _registry(name: str, proxy: Proxy, door: Door):  # type: ignore[no-untyped-def]
    tally = proxy.tally
    return registry(
        Reading(
            "headrace_door_answers_total",
            "Answers passed on",
            lambda: {(name, cell, str(status)): float(count) for (cell, status), count in tally.answered.items()},
            ("door", "cell", "status"),
        ),
        Reading(
            "headrace_door_elsewhere_total",
            "Requests that a cell did not answer or had no room for",
            lambda: {(name, cell): float(count) for cell, count in tally.elsewhere.items()},
            ("door", "cell"),
        ),
        Reading(
            "headrace_door_load",
            "Requests for each slot of a cell, as this door reckons",
            lambda: {(name, known.sight.name): known.load for known in door.there(time.monotonic())},
            ("door", "cell"),
        ),
    )
