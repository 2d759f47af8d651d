"""What a door makes of a cell's status."""

from collections.abc import Mapping

from google.protobuf.message import DecodeError

from headrace.core.cells import CellSight, Door
from headrace.mesh.logs import get_logger
from headrace.v1 import queue_pb2

_log = get_logger("cells")


def sight_of(name: str, status: queue_pb2.CellStatus) -> CellSight:
    waits = [load.estimated_wait_s for load in status.classes]
    return CellSight(
        name,
        sum(worker.slots for worker in status.workers if "decode" in worker.stages and not worker.draining),
        sum(load.queued + load.running for load in status.classes),
        max(0.0, waits[0]) if waits else 0.0,
        frozenset(model.model for model in status.models if model.servable),
    )


class Hearing:
    """Statuses of cells that the door has an address of; what others say is dropped, and said once."""

    def __init__(self, door: Door, known: Mapping[str, str]) -> None:
        self._door, self._known = door, known
        self._strange: set[str] = set()

    def on_status(self, subject: str, data: bytes, now_s: float) -> None:
        name = subject.split(".")[2]
        if name not in self._known:
            if name not in self._strange and len(self._strange) < len(self._known) + 16:
                self._strange.add(name)
                _log.warning("unknown_cell", cell=name)
            return
        try:
            status = queue_pb2.CellStatus.FromString(data)
        except DecodeError as error:
            _log.error("bad_status", cell=name, why=str(error))
            return
        self._door.heard(sight_of(name, status), now_s)
