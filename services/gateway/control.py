"""What this gateway tells the queue manager: cancels, attaches, stalled streams; one message per loop tick.

Nothing here is sent for certain: the sweep says it again until an answer is heard.
"""

import asyncio
from collections.abc import Iterable

from headrace.mesh import subjects
from headrace.mesh.bus import Bus
from headrace.mesh.errors import BusDown
from headrace.v1 import queue_pb2
from services.gateway.live import Live

CANCELS_REPEATED = 3  # by sweeps 0.25 s apart: the bus may lose one, and an outage is over or answered otherwise


class Control:
    def __init__(self, name: str, bus: Bus) -> None:
        self._name = name
        self._bus = bus
        self._batch = queue_pb2.ControlBatch(gateway=name)
        self._scheduled = False
        self._again: dict[str, int] = {}  # cancels of requests whose end will not be heard here: times left to say

    def cancel_anywhere(self, request_id: str) -> None:
        self._again[request_id] = CANCELS_REPEATED
        self._cancel_id(request_id, "")

    def sweep(self) -> None:
        for request_id, left in list(self._again.items()):
            self._cancel_id(request_id, "")
            self._again[request_id] = left - 1
            if left == 1:
                del self._again[request_id]

    def cancel(self, lives: Iterable[Live]) -> None:
        for live in lives:
            self._cancel_id(live.facts.id, self._name, live.deadline)

    def _cancel_id(self, request_id: str, gateway: str, deadline: bool = False) -> None:
        """gateway empty: wherever the request's stream is now."""
        self._batch.cancel.add(request_id=request_id, gateway=gateway, deadline=deadline)
        self._schedule()

    def attach(self, lives: Iterable[Live]) -> None:
        for live in lives:
            next_index = live.stream.next_index
            self._batch.attach.add(request_id=live.facts.id, gateway=self._name, next_index=next_index)
            self._schedule()

    def stalled(self, lives: Iterable[Live]) -> None:
        for live in lives:
            stream = live.stream
            self._batch.stalled.add(request_id=live.facts.id, attempt=stream.attempt, next_index=stream.next_index)
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        batch, self._batch, self._scheduled = self._batch, queue_pb2.ControlBatch(gateway=self._name), False
        try:
            self._bus.send(subjects.CONTROL, batch.SerializeToString())
        except BusDown:
            return  # the sweep repeats what still matters
