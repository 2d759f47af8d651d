"""What the console hears on the bus: telemetry of workers and the governor's caps, the last two samples of each."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from headrace.v1 import governor_pb2

PLANT = "plant"  # every worker that plays GPUs has its own; other devices are their host's
WORKERS_MAX = 1_024  # as many as the governor keeps
STALE_S = 3.0  # three samples missed
FORGET_S = 60.0


@dataclass(slots=True)
class Heard:
    """One worker's telemetry. Counters of two samples make a rate."""

    last: governor_pb2.Telemetry
    before: governor_pb2.Telemetry | None
    at_s: float  # monotonic

    def rate(self, counter: str) -> float:
        """A second; 0 until two samples of one incarnation are there."""
        if self.before is None or self.before.incarnation != self.last.incarnation:
            return 0.0
        passed_s = self.last.sent_s - self.before.sent_s
        grown = getattr(self.last, counter) - getattr(self.before, counter)
        return max(0.0, grown / passed_s) if passed_s > 0 else 0.0


class Hearing:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.caps: Mapping[str, governor_pb2.WorkerCaps] = {}
        self.stages: tuple[governor_pb2.StageBudget, ...] = ()
        self.unread = 0  # messages that were not what they should be
        self._workers: dict[str, Heard] = {}
        self._caps_word = (0, 0)
        self._caps_until_s = float("-inf")
        self._clock = clock

    def on_telemetry(self, data: bytes) -> None:
        try:
            sample = governor_pb2.Telemetry.FromString(data)
        except DecodeError:
            self.unread += 1
            return
        known = self._workers.get(sample.worker)
        if known is None and len(self._workers) >= WORKERS_MAX:
            return
        self._workers[sample.worker] = Heard(sample, known.last if known is not None else None, self._clock())

    def on_caps(self, data: bytes) -> None:
        try:
            batch = governor_pb2.CapBatch.FromString(data)
        except DecodeError:
            self.unread += 1
            return
        word = batch.epoch, batch.sequence
        if word > self._caps_word:
            self._caps_word, self._caps_until_s = word, self._clock() + batch.lease_s
            self.caps, self.stages = {worker.worker: worker for worker in batch.workers}, tuple(batch.stages)

    def sweep(self) -> None:
        """Every second: who has been silent for long is gone, a governor's word ends with its lease."""
        now_s = self._clock()
        for name in [name for name, heard in self._workers.items() if now_s - heard.at_s > FORGET_S]:
            del self._workers[name]
        if now_s > self._caps_until_s:
            self.caps, self.stages = {}, ()

    def of(self, worker: str) -> Heard | None:
        heard = self._workers.get(worker)
        return heard if heard is not None and self._clock() - heard.at_s <= STALE_S else None

    def fresh(self) -> Iterator[Heard]:
        now_s = self._clock()
        return (heard for heard in self._workers.values() if now_s - heard.at_s <= STALE_S)

    def rate(self, counter: str) -> float:
        return sum([heard.rate(counter) for heard in self.fresh()])

    def devices(self) -> dict[str, governor_pb2.DeviceReading]:
        """Each once: what several workers of a host report is one device."""
        found = {}
        for heard in self.fresh():
            for device in heard.last.devices:
                owner = heard.last.worker if device.source == PLANT else heard.last.host
                found[f"{owner}/{device.device}"] = device
        return found

    def power_w(self) -> float | None:
        """None: nobody can read any."""
        watts = [one.power_w * max(1, one.gpus) for one in self.devices().values() if one.power_w >= 0]
        return sum(watts) if watts else None

    def hottest_c(self) -> float | None:
        return max((one.temp_c for one in self.devices().values() if one.temp_c >= 0), default=None)
