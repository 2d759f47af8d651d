"""Caps that the governor orders, and what becomes of them: they hold for as long as it renews them.

A batch says all that holds, so the newest one counts alone. A governor that falls silent leaves each device at the
fallback that it named with its last word, or below, where a budget policy is published (playing.py).
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from google.protobuf.message import DecodeError

from headrace.mesh.logs import get_logger
from headrace.v1 import governor_pb2
from headrace.worker.devices import Devices
from headrace.worker.playing import Alone, under_fallback

log = get_logger("caps")

LEASE_MAX_S = 60.0  # nobody's word holds longer
DEVICES_MAX = 64  # of one worker, or one machine
Orders = Callable[[governor_pb2.CapBatch], Sequence[governor_pb2.DeviceCap]]
ALONE_S = 1.0  # between two looks at what it may draw without a governor


@dataclass(frozen=True, slots=True)
class Cap:
    """Watts of one GPU; 0: none."""

    cap_w: float
    fallback_w: float
    reason: str


class Caps:
    def __init__(
        self,
        me: str,
        devices: Devices,
        alone: Alone | None = None,
        clock: Callable[[], float] = time.monotonic,
        orders: Orders | None = None,
    ) -> None:
        """alone: what it goes by while the governor is silent; None: its fallback, and no more. orders: which of a
        batch are its own; None: those of the worker `me`."""
        self._orders = orders or partial(_of_worker, me)
        self._alone = alone
        self._fell_back = False
        self._devices = devices
        self._clock = clock
        self._newest = (0, 0)  # epoch and sequence
        self._governor = ""
        self._ordered: dict[str, Cap] = {}
        self._until_s = math.inf  # of the lease; inf: nothing is held
        self._held: dict[str, float] = {}  # caps as they were set
        self._refused: dict[str, str] = {}  # why they could not be, said once
        self._changed = asyncio.Event()

    @property
    def held(self) -> Mapping[str, float]:
        """Watts by device, as they were set; 0: none."""
        return self._held

    def on_message(self, data: bytes, _headers: Mapping[str, str]) -> None:
        try:
            batch = governor_pb2.CapBatch.FromString(data)
        except DecodeError as error:
            log.error("bad_cap_batch", why=str(error))
            return
        age = (batch.epoch, batch.sequence)
        if age <= self._newest:
            if batch.epoch < self._newest[0]:
                log.warning("older_governor_refused", governor=batch.governor, epoch=batch.epoch)
            return
        self._newest, self._governor = age, batch.governor
        self._ordered = _caps(self._orders(batch))
        self._until_s = self._clock() + min(max(batch.lease_s, 0.0), LEASE_MAX_S)
        self._fell_back = False
        self._changed.set()

    async def run(self) -> None:
        while True:
            wait_s = min(max(self._until_s - self._clock(), 0.0), LEASE_MAX_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            if self._changed.is_set():
                self._changed.clear()
                await self._hold({device: (cap.cap_w, cap.reason) for device, cap in self._ordered.items()})
            elif self._clock() >= self._until_s:
                await self._go_on()

    async def _go_on(self) -> None:
        """Without the governor: the fallback at once, and then every second what it works out itself."""
        self._until_s = self._clock() + ALONE_S if self._alone is not None else math.inf
        silent = f"{self._governor} is silent"
        wanted = {device: (cap.fallback_w, f"{silent}: fallback") for device, cap in self._ordered.items()}
        if self._fell_back and self._alone is not None:
            level = await self._alone.level()
            if self._changed.is_set():
                return  # it has spoken meanwhile
            if level is not None:
                reason = f"{silent}: level {level.share:.2f} of budget policy {level.version}, within its fallback"
                wanted |= {
                    device: (under_fallback(level, self._ordered[device].fallback_w, least_w, most_w), reason)
                    for device, (least_w, most_w) in self._devices.bounds().items()
                    if device in self._ordered
                }
        self._fell_back = True
        await self._hold(wanted)

    async def _hold(self, wanted: dict[str, tuple[float, str]]) -> None:
        """These caps and no others."""
        no_longer = dict.fromkeys(self._held, (0.0, f"{self._governor} has no cap for it"))
        for device, (cap_w, reason) in (no_longer | wanted).items():
            before_w = self._held.get(device, 0.0)
            if cap_w == before_w:
                continue
            why = await self._devices.cap(device, cap_w)
            if not why:
                self._refused.pop(device, None)
                self._held[device] = cap_w
                log.info("cap", device=device, before_w=before_w, after_w=cap_w, reason=reason)
            elif self._refused.get(device) != why:
                self._refused[device] = why
                log.warning("cap_refused", device=device, cap_w=cap_w, why=why)


def _of_worker(me: str, batch: governor_pb2.CapBatch) -> Sequence[governor_pb2.DeviceCap]:
    return next((worker.devices for worker in batch.workers if worker.worker == me), ())


def _caps(orders: Sequence[governor_pb2.DeviceCap]) -> dict[str, Cap]:
    """What is no power is no order."""
    found = {}
    for one in orders[:DEVICES_MAX]:
        if all(math.isfinite(watts) and watts >= 0 for watts in (one.cap_w, one.fallback_w)):
            found[one.device] = Cap(one.cap_w, one.fallback_w, one.reason)
        else:
            log.error("bad_cap", device=one.device, cap_w=one.cap_w, fallback_w=one.fallback_w)
    return found
