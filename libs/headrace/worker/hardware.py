"""Which devices a worker process has: from its settings, its engine and the machine."""

import asyncio
from collections.abc import Mapping

from headrace.engines.runtime import chosen_device
from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup
from headrace.mesh.logs import get_logger
from headrace.mesh.power_limits import NodeLimits, PowerLimits
from headrace.mesh.sensors import Nvml, Rapl, Sensors
from headrace.profiles import EngineProfile
from headrace.worker.devices import Devices
from headrace.worker.plant import Plant, plant_of

log = get_logger("devices")


def open_devices(worker: str, settings: Settings, profile: EngineProfile | None, env: Mapping[str, str]) -> Devices:
    """profile: of the profile engine, whose GPUs are played; None: the engine is real.

    Raises:
        BadSetup: HEADRACE_PLANT names no GPU.
    """
    by_node = settings.caps_by == "node"
    nvml = Nvml.open(env.get("CUDA_VISIBLE_DEVICES"), by_uuid=by_node)
    limits = NodeLimits(nvml) if by_node else PowerLimits(nvml, settings.caps, settings.data_dir)
    if profile is not None:
        devices = Devices(Sensors([nvml]), _plant(worker, settings, profile), limits)
    elif _on_gpu(settings, nvml):
        devices = Devices(Sensors([nvml]), None, limits, metered="nvml")
    else:
        devices = Devices(Sensors([nvml, Rapl()]), None, limits, metered="rapl")
    for note in devices.notes():
        log.info("sensor_missing", why=note)
    return devices


def _plant(worker: str, settings: Settings, profile: EngineProfile) -> Plant | None:
    try:
        found = plant_of(settings.plant, profile.gpu, profile.gpus)
    except ValueError as error:
        raise BadSetup(f"HEADRACE_PLANT: {error}") from error
    if found is None:
        log.info(
            "no_plant", profile=profile.name, why="HEADRACE_PLANT names no GPU, and its profile none that is known"
        )
        return None
    kind, gpus = found
    return Plant(kind, gpus, settings.plant_inlet_c, worker, asyncio.get_running_loop().time())


def _on_gpu(settings: Settings, nvml: Nvml) -> bool:
    if settings.engine == "onnx":
        return bool(nvml.handles) and chosen_device(settings.device) == "cuda"
    return bool(nvml.handles) and settings.device != "cpu"
