"""From what workers tell to what the governor's core reads: who is there, and one array for each kind of reading."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from headrace.control.constants import GPUS, SERVERS
from headrace.core.power.fleet import STAGES, Device, Fleet, Floats, Kind, Member, Readings
from headrace.v1 import governor_pb2
from services.governor.history import STALE_S, History, WorkerHistory
from services.governor.rows import Rows

HARDWARE = ("nvml", "rapl", "hwmon")  # which two workers of a machine may both report
PLANT = "plant"  # every worker that plays GPUs has its own
UNKNOWN = Kind(0.0, 0.0, 0.0, 0.0, 3.56, 0.35, 0.75)  # of what has no limit of its own


@dataclass(frozen=True, slots=True)
class Told:
    """One device, as it was told last."""

    worker: str
    reading: governor_pb2.DeviceReading


class Roll:
    """Keeps one Fleet object for as long as nothing in it changes."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._signature: tuple[object, ...] = ()
        self.fleet = Fleet(rows.rows, (), ())
        self.told: list[Told] = []

    def read(self, history: History, now_s: float) -> tuple[Fleet, Readings]:
        workers = [(name, one) for name, one in history if one.samples and not _left(one, now_s)]
        self.told = list(_devices(workers))
        members = tuple(self._member(name, one) for name, one in workers)
        signature = (members, [_facts(told) for told in self.told])
        if signature != self._signature:
            self._signature = signature
            places = {name: at for at, (name, _) in enumerate(workers)}
            devices = tuple(_device(told, places[told.worker]) for told in self.told)
            self.fleet = Fleet(self._rows.rows, members, devices)
        return self.fleet, self._readings(dict(workers), now_s)

    def _member(self, name: str, worker: WorkerHistory) -> Member:
        last = worker.samples[-1]
        row, opaque = self._rows.of(name, last.host)
        return Member(name, row, tuple(stage for stage in STAGES if stage in last.stages), opaque)

    def _readings(self, workers: dict[str, WorkerHistory], now_s: float) -> Readings:
        told = [one.reading for one in self.told]
        owners = [workers[one.worker] for one in self.told]
        full = _known([one.full_w for one in told], above=0.0)
        shares = {name: _shares(worker) for name, worker in workers.items()}
        n = len(told)
        return Readings(
            _known([one.power_w for one in told]),
            _known([one.temp_c for one in told]),
            np.array([now_s - worker.sampled_s for worker in owners], dtype=np.float64),
            full,
            np.where(np.isfinite(full), np.clip(_known([one.busy for one in told]), 0.0, 1.0), np.nan),
            _known([one.speed for one in told], above=0.0),
            _known([one.cap_w for one in told], above=0.0),
            np.array([shares[one.worker] for one in self.told], dtype=np.float64).reshape(n, len(STAGES)).T,
            np.nan_to_num(np.array([max(0.0, worker.samples[-1].waiting_s) for worker in owners], dtype=np.float64)),
            np.ones(n),
            np.full(n, np.nan),
        )


def _left(worker: WorkerHistory, now_s: float) -> bool:
    """It has said that it goes, and has gone."""
    return worker.leaving and now_s - worker.sampled_s > STALE_S


def _devices(workers: list[tuple[str, WorkerHistory]]) -> Iterator[Told]:
    """Each once: of two workers that report one GPU of a machine the first counts that may cap it, or the first."""
    told = [(name, worker.samples[-1].host, device) for name, worker in workers for device in _own(worker)]
    owner: dict[tuple[str, str], str] = {}
    for may_cap in (True, False):
        for name, host, device in told:
            if (device.cap_least_w > 0.0) == may_cap:
                owner.setdefault(_identity(name, host, device), name)
    for name, host, device in told:
        if owner[_identity(name, host, device)] == name and _draws(device):
            yield Told(name, device)


def _own(worker: WorkerHistory) -> list[governor_pb2.DeviceReading]:
    """A worker on the plant computes on nothing else, whatever its machine has."""
    devices = list(worker.samples[-1].devices)
    played = [device for device in devices if device.source == PLANT]
    return played or devices


def _identity(worker: str, host: str, device: governor_pb2.DeviceReading) -> tuple[str, str]:
    return (host if device.source in HARDWARE else worker, device.device)


def _draws(device: governor_pb2.DeviceReading) -> bool:
    """A thermometer has no part in a row's power."""
    return device.power_w >= 0.0 or device.cap_most_w > 0.0 or device.cap_least_w > 0.0 or bool(device.kind)


def _facts(told: Told) -> tuple[object, ...]:
    """All that a Device is made of."""
    one = told.reading
    return told.worker, one.device, one.kind, one.cap_least_w, one.cap_most_w, one.gpus


def _device(told: Told, worker: int) -> Device:
    one = told.reading
    known = kind_of(one.kind)
    most_w = one.cap_most_w if one.cap_most_w > 0.0 else known.prefill_w if known is not None else 0.0
    kind = known or (Kind.of_most(most_w) if most_w > 0.0 else UNKNOWN)
    return Device(f"{told.worker}/{one.device}", worker, kind, max(0.0, one.cap_least_w), most_w, max(1, one.gpus))


@lru_cache(maxsize=64)
def kind_of(name: str) -> Kind | None:
    """Of the plant's constants; None: nobody has described it."""
    gpu = GPUS.get(name)
    if gpu is None:
        return None
    server = SERVERS[name]
    return Kind(
        gpu.context_w,
        gpu.encode_w,
        gpu.prefill_w,
        gpu.decode_w,
        gpu.speed_exponent,
        gpu.speed_least,
        gpu.decode_free_speed,
        server.airflow_m3s / server.gpus,
        server.airflow_least,
        gpu.soft_limit_c,
    )


def _shares(worker: WorkerHistory) -> list[float]:
    """Of the time between the last two samples, by stage."""
    if len(worker.samples) < 2:
        return [0.0] * len(STAGES)
    last, before = worker.samples[-1], worker.samples[-2]
    return [max(0.0, getattr(last, f"{s}_busy_s") - getattr(before, f"{s}_busy_s")) for s in STAGES]


def _known(values: list[float], above: float | None = None) -> Floats:
    """nan for what a worker marks as not known: below 0, or at most `above`."""
    found = np.array(values, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        unknown = found < 0.0 if above is None else found <= above
    return np.where(unknown, np.nan, found)
