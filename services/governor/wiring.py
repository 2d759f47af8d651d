"""A governor process from its settings to its end."""

import asyncio
import time

from headrace.mesh import metrics, rpc, telemetry
from headrace.mesh.binding import Inner
from headrace.mesh.bus import Bus
from headrace.mesh.config import Settings
from headrace.mesh.guard import operators
from headrace.mesh.health import common_readings
from headrace.mesh.lifecycle import Lifecycle
from headrace.mesh.sensors import Sensors
from headrace.mesh.store import Store
from headrace.v1 import governor_pb2_grpc
from services.governor.governing import Governing
from services.governor.options import Options
from services.governor.power_readings import power_readings
from services.governor.readings import readings
from services.governor.service import NAME, Governor, GovernorServicer


async def main(process: str, settings: Settings, options: Options, lifecycle: Lifecycle) -> None:
    telemetry.set_up(process, settings)
    inner = Inner.of(settings)
    bus = await Bus.open(settings, process)
    store = await Store.open(settings)
    governor = Governor(bus, Sensors.of_this_machine(), settings.host)
    governing = Governing(process, options, bus, store, governor.history, time.monotonic)
    servicer = GovernorServicer(governor, governing)

    def add(server: object) -> None:
        governor_pb2_grpc.add_GovernorServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]

    guards = operators(settings.api_keys_file, [NAME])
    server = await rpc.serve(settings.grpc_addr, add, [NAME], guards=guards, credentials=inner.credentials)
    known = (*readings(governor), *power_readings(governing), *common_readings(bus, settings))
    scraped = await metrics.serve_metrics(settings.metrics_addr, metrics.registry(*known), inner.context)
    await governor.listen()
    lifecycle.ready(process, grpc=settings.advertised(server.port), metrics_port=scraped.port)
    async with asyncio.TaskGroup() as group:
        group.create_task(governor.run(lifecycle.stopping))
        group.create_task(governing.run(lifecycle.stopping))
    inner.close()
    await server.stop(1.0)
    await scraped.stop()
    governing.close()
    await store.close()
    await bus.close()
