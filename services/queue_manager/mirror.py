"""What others may see of the queue manager: the cell's status on the bus, leases and lines in Redis."""

import asyncio
import contextlib
import json
import time
from dataclasses import asdict

from headrace.core.queue import QueueCore
from headrace.mesh import subjects
from headrace.mesh.bus import Bus
from headrace.mesh.errors import BusDown, StoreDown
from headrace.mesh.store import Store
from headrace.wire.status import status_to_proto
from services.queue_manager.scaling import Scaling
from services.queue_manager.scaling_shown import mark_startable

STATUS_S = 0.25
KEEP_S = 0.5
GROUPS_MAX = 100  # of each virtual queue
LINE_MAX = 100  # request ids of each waiting line that Redis gets to see


class Mirror:
    def __init__(self, bus: Bus, store: Store) -> None:
        self._bus = bus
        self._store = store

    async def publish(self, core: QueueCore, scaling: Scaling | None) -> None:
        while True:
            status = status_to_proto(core.view(time.time()))
            if scaling is not None:
                mark_startable(status, scaling)
            with contextlib.suppress(BusDown):  # gateways see the same outage
                self._bus.send(subjects.STATUS, status.SerializeToString())
            await asyncio.sleep(STATUS_S)

    async def keep(self, core: QueueCore) -> None:
        """Redis is a mirror: nothing is ever read back from it by the queue manager but the token logs."""
        while True:
            view = core.view(time.time())
            leases = {worker.worker: json.dumps(asdict(worker)).encode() for worker in view.workers}
            shown = asdict(core.queue_view(LINE_MAX)) | {"virtual": asdict(core.inspect(time.time(), GROUPS_MAX))}
            snapshot = json.dumps(shown).encode()
            with contextlib.suppress(StoreDown):  # the next round writes it all again
                await self._store.put_leases(leases)
                await self._store.put_queue(snapshot)
            await asyncio.sleep(KEEP_S)
