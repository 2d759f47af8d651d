"""Listens on HTTP and gRPC, says that it is ready, and drains when told to stop."""

import asyncio
import ssl
from dataclasses import dataclass

import grpc
import grpc.aio

from headrace.mesh import rpc
from headrace.mesh.config import Settings
from headrace.mesh.health import common_readings
from headrace.mesh.lifecycle import Lifecycle, collect_less
from headrace.mesh.metrics import Readings, serve_metrics
from headrace.mesh.tls import Tls
from headrace.oip.open_inference_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from headrace.v1.gateway_pb2_grpc import add_GatewayServiceServicer_to_server
from services.gateway import oip_rpc
from services.gateway.beside import Beside
from services.gateway.front import Front
from services.gateway.routes import bind, http_server
from services.gateway.rpc import GatewayServicer

SERVICE = "headrace.v1.GatewayService"
DRAIN_S = 20.0  # open responses; the lifecycle ends the process after 30
STOP_S = 2.0  # what is left after that: error events on their way out


@dataclass(slots=True)
class Doors:
    """TLS of the three ports; None: not encrypted. The API's callers show a certificate only where all must."""

    calls: grpc.ServerCredentials | None = None
    web: ssl.SSLContext | None = None
    scraped: ssl.SSLContext | None = None
    _following: asyncio.Task[None] | None = None

    @staticmethod
    def of(tls: Tls | None) -> "Doors":
        if tls is None:
            return Doors()
        everyone = tls.clients == "all"
        web, scraped = tls.server_context(clients=everyone), tls.server_context(clients=True)
        following = asyncio.get_running_loop().create_task(tls.follow(web, scraped), name="certificates")
        return Doors(tls.server_credentials(clients=everyone), web, scraped, following)

    def close(self) -> None:
        if self._following is not None:
            self._following.cancel()


async def serve(front: Front, settings: Settings, tls: Tls | None, life: Lifecycle) -> None:
    """Until the lifecycle says stop and everything has drained."""
    doors = Doors.of(tls)
    sock, metrics = bind(settings.http_addr), front.gateway.metrics
    beside = Beside(front, settings, tls)
    web = http_server(front, doors.web, beside.routes, beside.listed)
    serving = asyncio.ensure_future(web.serve(sockets=[sock]))
    servicer = GatewayServicer(front)
    calls = await rpc.serve(
        settings.grpc_addr,
        lambda server: _add(server, servicer, beside.oip),
        [SERVICE, oip_rpc.SERVICE],
        credentials=doors.calls,
    )
    metrics.registry.register(Readings(common_readings(front.gateway.bus, settings)))
    scraped = await serve_metrics(settings.metrics_addr, metrics.registry, doors.scraped)
    await front.gateway.start()
    await front.console.feed.start()
    await beside.start()
    collect_less()
    host, port = sock.getsockname()[:2]
    grpc_host = settings.grpc_addr.rpartition(":")[0]
    life.ready("gateway", id=front.gateway.name, http=f"{host}:{port}", grpc=f"{grpc_host}:{calls.port}")
    await life.stopping.wait()
    front.admission.draining = True
    await calls.set_serving(False)
    await beside.stop_batches()
    await front.console.feed.stop()
    await front.gateway.drain(DRAIN_S)
    await calls.stop(STOP_S)
    web.should_exit = True
    await serving
    await beside.stop()
    await scraped.stop()
    doors.close()
    await front.gateway.bus.close()


def _add(server: grpc.aio.Server, servicer: GatewayServicer, oip: oip_rpc.OipServicer) -> None:
    add_GatewayServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    add_GRPCInferenceServiceServicer_to_server(oip, server)  # type: ignore[no-untyped-call]
