"""The devices that a worker runs on: real ones that are read, or the plant of a profile; their caps; their energy.

On the event loop, but for calls into drivers. A device is real or modelled as a whole worker's engine is.
"""

import asyncio
import os
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from headrace.mesh.power_limits import NodeLimits, PowerLimits
from headrace.mesh.sensors import UNKNOWN, DeviceReading, Sensors
from headrace.worker.energy import Account, Measured
from headrace.worker.plant import DEVICE, Plant

READ_WAIT_S = 1.0  # a driver that takes longer is said to be silent
Metered = Literal["nvml", "rapl", ""]
NO_JOULES = (0.0, 0.0)


class Devices:
    def __init__(
        self,
        sensors: Sensors,
        plant: Plant | None = None,
        limits: PowerLimits | NodeLimits | None = None,
        metered: Metered = "",
    ) -> None:
        """metered: whose energy is what this worker computes with. rapl: as much of the packages' as the process has
        of the machine's processor time, since packages are shared. Empty: nobody's, or the plant's."""
        self.account = Account()
        self._sensors = sensors
        self._plant = plant
        self._limits = limits
        self._metered = metered
        self._measured = Measured()
        self._last: list[DeviceReading] = []
        self._pending: asyncio.Task[list[DeviceReading]] | None = None
        self.last: list[DeviceReading] = []  # what was read last
        self._read_s = 0.0
        self._energy_j: dict[str, float] = {}  # counters of the metered ones, as last read
        self._processor_s = 0.0

    def notes(self) -> list[str]:
        limits = self._limits.notes.items() if self._limits is not None else ()
        return self._sensors.notes() + [f"{device}: {why}" for device, why in limits]

    # --- what is computed ---

    def slowed(self, prefill_s: float, decode_s: float) -> tuple[float, float]:
        """How long an iteration takes now, in parts, that takes so long at full speed."""
        plant = self._plant
        if plant is None:
            return prefill_s, decode_s
        return prefill_s / plant.prefill.rate, decode_s / plant.decode.rate

    def slowed_encode(self, encode_s: float) -> float:
        return encode_s / self._plant.encode.rate if self._plant is not None else encode_s

    def iteration(self, prefill_s: float, decode_s: float, end_s: float | None) -> tuple[float, float]:
        """So long it takes, in parts. Returns joules of the parts; 0: nothing can be read.

        end_s: of modelled time, on the loop's clock; None: the time is real, and takes nothing of a plant.
        """
        plant, account = self._plant, self.account
        if end_s is None:
            prefill_j, decode_j = self._measured_j(prefill_s), self._measured_j(decode_s)
        elif plant is not None:
            prefill_j = plant.run(plant.prefill, prefill_s, end_s - decode_s) if prefill_s else 0.0
            decode_j = plant.run(plant.decode, decode_s, end_s) if decode_s else 0.0
        else:
            return NO_JOULES
        account.prefill_j += prefill_j
        account.decode_j += decode_j
        return prefill_j, decode_j

    def encoding(self, encode_s: float, end_s: float | None) -> float:
        """The same of a batch of media."""
        if end_s is None:
            joules = self._measured_j(encode_s)
        else:
            joules = self._plant.run(self._plant.encode, encode_s, end_s) if self._plant is not None else 0.0
        self.account.encode_j += joules
        return joules

    def _measured_j(self, took_s: float) -> float:
        return self._measured.spend(took_s) if self._metered else 0.0

    # --- what is read ---

    async def read(self) -> list[DeviceReading]:
        """Once a second. A driver that hangs is waited for a second; what it had to say is told as silent."""
        real = await self._real()
        if self._plant is not None:
            reading = self._plant.reading(asyncio.get_running_loop().time())
            self.account.idle_j = self._plant.idle_j
            real = [reading, *real]
        self.last = real
        return real

    async def _real(self) -> list[DeviceReading]:
        if self._pending is None:
            self._pending = asyncio.create_task(asyncio.to_thread(self._sensors.read))
        await asyncio.wait({self._pending}, timeout=READ_WAIT_S)
        if not self._pending.done():
            why = "the driver does not answer"
            return [DeviceReading(one.device, one.source, unreadable=why) for one in self._last]
        readings, self._pending = self._pending.result(), None
        busy = self._meter(readings, time.monotonic())
        self._last = [self._with_caps(one, busy) for one in readings]
        return self._last

    def _meter(self, readings: Iterable[DeviceReading], now_s: float) -> float:
        """The busy share since the last reading, negative: not known; and the account."""
        metered = [one for one in readings if self._metered and one.source == self._metered]
        interval_s, self._read_s = now_s - self._read_s, now_s
        processor_s, before_s = time.process_time(), self._processor_s
        self._processor_s = processor_s
        first = not self._energy_j
        energy_j = sum([self._grown_j(one, interval_s) for one in metered])
        if first or not metered or interval_s <= 0:
            return UNKNOWN
        if self._metered == "rapl":
            energy_j *= min(1.0, (processor_s - before_s) / (interval_s * (os.cpu_count() or 1)))
        idle_j, busy = self._measured.read(energy_j, interval_s)
        self.account.idle_j += idle_j
        return busy

    def _grown_j(self, one: DeviceReading, interval_s: float) -> float:
        """By its counter; without one, by its power."""
        if one.energy_j < 0:
            self._energy_j.setdefault(one.device, 0.0)
            return max(0.0, one.power_w) * interval_s
        before_j = self._energy_j.get(one.device, one.energy_j)
        self._energy_j[one.device] = one.energy_j
        return max(0.0, one.energy_j - before_j)

    def _with_caps(self, one: DeviceReading, busy: float) -> DeviceReading:
        busy = busy if one.source == self._metered else UNKNOWN
        known = self._limits.known(one.device) if self._limits is not None else None
        if known is None:
            return replace(one, busy=busy)
        cap_w, least_w, most_w, kind = known
        return replace(one, cap_w=cap_w, cap_least_w=least_w, cap_most_w=most_w, kind=kind, busy=busy)

    # --- caps ---

    def bounds(self) -> dict[str, tuple[float, float]]:
        """The lowest and the highest cap of each device that can have one."""
        return {one.device: (one.cap_least_w, one.cap_most_w) for one in self.last if one.cap_least_w > 0.0}

    async def cap(self, device: str, cap_w: float) -> str:
        """Watts of one GPU; 0: none. Returns why it cannot be set; empty: it holds."""
        if device == DEVICE and self._plant is not None:
            self._plant.cap(cap_w)
            return ""
        if self._limits is None:
            return "its caps cannot be set: HEADRACE_CAPS does not name it"
        return await asyncio.to_thread(self._limits.set, device, cap_w)

    def restore(self) -> None:
        """Every device has its own limit again. At the process's end: the event loop may wait for the driver."""
        if self._plant is not None:
            self._plant.cap(0.0)
        if self._limits is not None:
            self._limits.restore()
