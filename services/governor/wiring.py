"""A governor process from its settings to its end."""

from headrace.mesh import metrics, rpc, telemetry
from headrace.mesh.bus import Bus
from headrace.mesh.config import Settings
from headrace.mesh.lifecycle import Lifecycle
from headrace.mesh.sensors import Sensors
from headrace.v1 import governor_pb2_grpc
from services.governor.readings import readings
from services.governor.service import NAME, Governor, GovernorServicer


async def main(process: str, settings: Settings, lifecycle: Lifecycle) -> None:
    telemetry.set_up(process, settings)
    bus = await Bus.connect(settings.nats_url, process)
    governor = Governor(bus, Sensors.of_this_machine(), settings.host)

    def add(server: object) -> None:
        governor_pb2_grpc.add_GovernorServiceServicer_to_server(GovernorServicer(governor), server)  # type: ignore[no-untyped-call]

    server = await rpc.serve(settings.grpc_addr, add, [NAME])
    scraped = await metrics.serve_metrics(settings.metrics_addr, metrics.registry(*readings(governor)))
    await governor.listen()
    lifecycle.ready(process, grpc=settings.advertised(server.port), metrics_port=scraped.port)
    await governor.run(lifecycle.stopping)
    await server.stop(1.0)
    await scraped.stop()
    await bus.close()
