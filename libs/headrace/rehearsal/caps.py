"""Caps that hold once and for all, said in a governor's place: what a governor must be better than."""

import asyncio
import time
from contextlib import suppress

from headrace.mesh import subjects
from headrace.mesh.bus import Bus
from headrace.rehearsal.attainable import Shared
from headrace.rehearsal.watch import Watch
from headrace.v1 import governor_pb2

EVERY_S = 1.0
LEASE_S = 5.0


class PermanentCaps:
    """Says the same caps every second, until it is told to end."""

    def __init__(self, bus: Bus, watch: Watch, shared: Shared) -> None:
        self._bus = bus
        self._batch = governor_pb2.CapBatch(governor="permanent", epoch=time.time_ns(), lease_s=LEASE_S)
        for name, stages in watch.stages.items():
            worker, device = name.split("/", 1)
            cap_w = shared.of(stages)
            cap = governor_pb2.DeviceCap(device=device, cap_w=cap_w, fallback_w=cap_w, reason="a permanent cap")
            self._batch.workers.add(
                worker=worker,
                devices=[cap],
                weight=1.0,
                slots_share=1.0,
                prefill_factor=1.0,
                decode_factor=1.0,
                encode_factor=1.0,
            )
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        self._say()
        self._task = asyncio.create_task(self._run())

    async def end(self) -> None:
        """The last word: no caps. Raises what ended the saying."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        del self._batch.workers[:]
        self._say()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            self._say()

    def _say(self) -> None:
        self._batch.sequence += 1
        self._batch.sent_s = time.time()
        self._bus.send(subjects.CAPS, self._batch.SerializeToString())
