"""What workers said of themselves lately: bounded per worker and in all, stale ones marked, gone ones forgotten."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from headrace.v1 import governor_pb2, queue_pb2

SAMPLES = 300  # five minutes at one a second
WORKERS = 1024  # of one cell; the longest silent one makes room
STALE_S = 3.0  # three samples missed
FORGET_S = 600.0


@dataclass(slots=True)
class WorkerHistory:
    heard_s: float  # telemetry or heartbeat
    sampled_s: float = 0.0  # telemetry
    leaving: bool = False
    draining: bool = False
    samples: deque[governor_pb2.Telemetry] = field(default_factory=lambda: deque(maxlen=SAMPLES))

    def stale(self, now_s: float) -> bool:
        return self.leaving or now_s - self.sampled_s > STALE_S


class History:
    """Times are of the governor's own monotonic clock."""

    def __init__(self) -> None:
        self._workers: dict[str, WorkerHistory] = {}

    def on_telemetry(self, sample: governor_pb2.Telemetry, now_s: float) -> None:
        worker = self._worker(sample.worker, now_s)
        if worker.samples and worker.samples[-1].incarnation != sample.incarnation:
            worker.samples.clear()  # counters begin again
            worker.leaving = False
        worker.samples.append(sample)
        worker.sampled_s = now_s

    def on_heartbeat(self, heartbeat: queue_pb2.Heartbeat, now_s: float) -> None:
        worker = self._worker(heartbeat.worker, now_s)
        worker.draining = heartbeat.draining
        worker.leaving = heartbeat.leaving

    def _worker(self, name: str, now_s: float) -> WorkerHistory:
        found = self._workers.get(name)
        if found is None:
            if len(self._workers) >= WORKERS:
                del self._workers[min(self._workers, key=lambda known: self._workers[known].heard_s)]
            found = self._workers[name] = WorkerHistory(now_s)
        found.heard_s = now_s
        return found

    def forget(self, now_s: float) -> None:
        for name in [name for name, worker in self._workers.items() if now_s - worker.heard_s > FORGET_S]:
            del self._workers[name]

    def __iter__(self) -> Iterator[tuple[str, WorkerHistory]]:
        return iter(sorted(self._workers.items()))

    def latest(self) -> Iterator[tuple[str, governor_pb2.Telemetry]]:
        return ((name, worker.samples[-1]) for name, worker in self if worker.samples)
