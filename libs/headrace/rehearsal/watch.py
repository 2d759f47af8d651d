"""What the workers' devices say, heard on the bus and not from the governor: whoever judges it measures for itself."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from headrace.mesh import subjects
from headrace.mesh.bus import Bus, Subscription
from headrace.v1 import governor_pb2

READINGS_MAX = 3_600  # of one worker: an hour
PLANT = "plant"  # the source of devices that are played


@dataclass(frozen=True, slots=True)
class Reading:
    """One device of one worker, as it said. Watts of one GPU, joules of all."""

    at_s: float  # Unix epoch
    energy_j: float  # counter
    power_w: float
    temp_c: float
    cap_w: float  # 0: none
    speed: float
    busy: float
    gpus: int


class Watch:
    def __init__(self) -> None:
        self.readings: dict[str, list[Reading]] = {}  # by worker and device, oldest first
        self.stages: dict[str, tuple[str, ...]] = {}  # by the same
        self.unread = 0  # messages that were not what they should be
        self._heard = asyncio.Event()
        self._subscription: Subscription | None = None

    async def begin(self, bus: Bus) -> None:
        self._subscription = await bus.subscribe(subjects.TELEMETRY, self._hear)
        await bus.flush()

    async def end(self) -> None:
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    async def until_heard(self, devices: int) -> None:
        """Until so many have been heard twice."""
        while sum(len(rows) > 1 for rows in self.readings.values()) < devices:
            self._heard.clear()
            await self._heard.wait()

    def _hear(self, data: bytes, _headers: Mapping[str, str]) -> None:
        try:
            said = governor_pb2.Telemetry.FromString(data)
        except DecodeError:
            self.unread += 1
            return
        for one in said.devices:
            if one.source == PLANT:
                name = f"{said.worker}/{one.device}"
                self.stages[name] = tuple(said.stages)
                rows = self.readings.setdefault(name, [])
                rows.append(_reading(said.sent_s, one))
                del rows[:-READINGS_MAX]
        self._heard.set()


def _reading(at_s: float, one: governor_pb2.DeviceReading) -> Reading:
    return Reading(at_s, one.energy_j, one.power_w, one.temp_c, one.cap_w, one.speed, one.busy, one.gpus or 1)
