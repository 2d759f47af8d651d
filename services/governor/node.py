"""The governor's agent on a machine with GPUs: `python -m services.governor.node --id node-0`.

It sets the power limits that the governor orders for this machine's GPUs, whichever worker computes on them, so that
workers need no right to (their HEADRACE_CAPS_BY is node). What workers tell of their devices stays theirs.
"""

import argparse
import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from headrace.mesh import metrics, rpc, subjects
from headrace.mesh.binding import Inner
from headrace.mesh.bus import Bus
from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup
from headrace.mesh.lifecycle import Lifecycle, run
from headrace.mesh.power_limits import PowerLimits
from headrace.mesh.sensors import Nvml, Sensors
from headrace.mesh.subjects import check_process_id
from headrace.v1 import governor_pb2
from headrace.worker.caps import Caps
from headrace.worker.devices import Devices


def mine(gpus: frozenset[str], batch: governor_pb2.CapBatch) -> Sequence[governor_pb2.DeviceCap]:
    """Of all workers' devices those that are this machine's. gpus: their names, by UUID."""
    return [one for worker in batch.workers for one in worker.devices if one.device in gpus]


async def serve(name: str, settings: Settings, nvml: Nvml, life: Lifecycle) -> None:
    """Until the lifecycle says stop; then every GPU has its own limit again. Raises BadSetup: there is no GPU."""
    if not nvml.handles:
        raise BadSetup(nvml.note or "nvml: no GPU is visible to this process")
    devices = Devices(Sensors([nvml]), None, PowerLimits(nvml, settings.caps or ("all",), settings.data_dir))
    caps = Caps(name, devices, orders=partial(mine, frozenset(nvml.handles)))
    inner = Inner.of(settings)
    bus = await Bus.open(settings, name)
    server = await rpc.serve(settings.grpc_addr, lambda _: None, [], credentials=inner.credentials)
    held = metrics.Reading(
        "headrace_node_cap_watts",
        "Power limits that hold; 0: the GPU's own",
        lambda: {(name, device): watts for device, watts in caps.held.items()},
        ("node", "device"),
    )
    scraped = await metrics.serve_metrics(settings.metrics_addr, metrics.registry(held), inner.context)
    await bus.subscribe(subjects.CAPS, caps.on_message)
    working = asyncio.create_task(caps.run(), name="caps")
    life.ready(name, gpus=sorted(nvml.handles), notes=devices.notes())
    stopping = asyncio.create_task(life.stopping.wait(), name="stopping")
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    working.cancel()
    with suppress(asyncio.CancelledError):
        await working
    devices.restore()
    await scraped.stop()
    await server.stop(1.0)
    await bus.close()
    inner.close()


async def main(name: str, life: Lifecycle) -> None:
    await serve(name, Settings.from_env(os.environ), Nvml.open(by_uuid=True), life)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="services.governor.node")
    parser.add_argument("--id", type=check_process_id, required=True)
    run(partial(main, parser.parse_args().id))
