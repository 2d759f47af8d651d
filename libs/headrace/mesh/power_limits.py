"""Power limits of real GPUs: set on those that opted in, and given back whatever happens.

Before a GPU is touched its own limit goes into a small file, one a GPU; who restores the limit removes the file. A
process that dies leaves it, and the next worker that starts with the same directory, or `headrace down`, restores it.
"""

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from headrace.control.constants import GPUS, GpuKind
from headrace.control.power import speed_under, watts_at
from headrace.mesh.logs import get_logger
from headrace.mesh.sensors import Nvml

log = get_logger("power_limits")

FOLDER = "power-limits"  # in the data directory
STARTED_SLACK_S = 1.0  # a process's start time as it was written and as it is read


@dataclass(frozen=True, slots=True)
class Kept:
    """A GPU's own limit, and the process that has changed it."""

    uuid: str
    limit_mw: int
    pid: int
    started_s: float

    def alive(self) -> bool:
        try:
            started_s: float = psutil.Process(self.pid).create_time()
        except psutil.NoSuchProcess:
            return False
        return abs(started_s - self.started_s) < STARTED_SLACK_S


@dataclass(slots=True)
class Limited:
    """A GPU that may be limited."""

    handle: Any
    uuid: str
    kind: GpuKind | None
    least_mw: int
    own_mw: int  # its limit as it was found, never exceeded
    clock_mhz: int = 0  # the highest; 0: clocks are not to be locked
    set_mw: int = 0  # 0: it was not touched
    locked: bool = False
    cap_w: float = 0.0  # that holds, by limit or by clocks

    @property
    def least_w(self) -> float:
        """By locked clocks where the kind is known, else by the driver's least limit."""
        if self.kind is None or not self.clock_mhz:
            return self.least_mw / 1e3
        return min(self.least_mw / 1e3, watts_at(self.kind, self.kind.prefill_w, self.kind.speed_least))


class PowerLimits:
    """Calls take milliseconds: off the event loop."""

    def __init__(self, nvml: Nvml, opted_in: tuple[str, ...], directory: Path) -> None:
        """directory: of the files. Restores first what dead processes have left there."""
        self.notes: dict[str, str] = {}  # by device: why it cannot be limited
        self._library = nvml.library
        self._folder = directory / FOLDER
        self._turn = threading.Lock()
        self._closed = False
        self._limited: dict[str, Limited] = {}
        restore_left(nvml.library, directory)
        for device, handle in nvml.handles.items():
            if device in opted_in or "all" in opted_in:
                self._open(device, handle)
        for device in opted_in:
            if device != "all" and device not in nvml.handles:
                self.notes[device] = f"HEADRACE_CAPS names {device}; this process sees no such GPU"

    def _open(self, device: str, handle: Any) -> None:
        library = self._library
        try:
            uuid = _text(library.nvmlDeviceGetUUID(handle))
            least_mw, _ = library.nvmlDeviceGetPowerManagementLimitConstraints(handle)
            own_mw = library.nvmlDeviceGetPowerManagementLimit(handle)
            name = _text(library.nvmlDeviceGetName(handle)).lower()
        except library.NVMLError as error:
            self.notes[device] = f"its power limit cannot be read: {error}"
            return
        kept = _read(self._folder / f"{uuid}.json")
        if kept is not None:
            self.notes[device] = f"process {kept.pid} limits it already"
            return
        kind = next((kind for kind in GPUS.values() if kind.name in name), None)
        self._limited[device] = Limited(handle, uuid, kind, least_mw, own_mw, self._clock_mhz(handle, kind))

    def _clock_mhz(self, handle: Any, kind: GpuKind | None) -> int:
        """0 where clocks cannot be locked to any effect that is known."""
        try:
            return int(self._library.nvmlDeviceGetMaxClockInfo(handle, self._library.NVML_CLOCK_SM)) if kind else 0
        except self._library.NVMLError:
            return 0

    def known(self, device: str) -> tuple[float, float, float, str] | None:
        """Cap that holds (0: none), least and most, W, and the kind; None: this device cannot be limited."""
        one = self._limited.get(device)
        if one is None:
            return None
        return one.cap_w, one.least_w, one.own_mw / 1e3, one.kind.name if one.kind is not None else ""

    def set(self, device: str, cap_w: float) -> str:
        """0: its own limit again. Below what the driver allows: that, and locked clocks where the kind is known.

        Returns why it could not be done; empty: it was.
        """
        with self._turn:
            return "the process ends" if self._closed else self._set(device, cap_w)

    def _set(self, device: str, cap_w: float) -> str:
        one = self._limited.get(device)
        if one is None:
            return self.notes.get(device, "no such device")
        if not cap_w:
            return self._restore(device, one)
        wanted_mw = min(max(round(cap_w * 1e3), one.least_mw), one.own_mw)
        try:
            if not one.set_mw:
                self._keep(one)
            self._library.nvmlDeviceSetPowerManagementLimit(one.handle, wanted_mw)
            one.set_mw = wanted_mw
            self._lock(one, cap_w)
            one.cap_w = min(max(cap_w, one.least_w), one.own_mw / 1e3)
        except (self._library.NVMLError, OSError) as error:
            if not one.set_mw:
                self._forget(one)  # nothing has been changed
            self.notes[device] = f"its power limit cannot be set: {error}"
            if not one.set_mw:
                del self._limited[device]
            return self.notes[device]
        return ""

    def _lock(self, one: Limited, cap_w: float) -> None:
        """Clocks go where the limit cannot, by the power law of the kind; they are free again above the limit."""
        library = self._library
        if cap_w * 1e3 < one.least_mw and one.kind is not None and one.clock_mhz:
            clock_mhz = round(one.clock_mhz * float(speed_under(one.kind, cap_w, one.kind.prefill_w)))
            library.nvmlDeviceSetGpuLockedClocks(one.handle, 0, clock_mhz)
            one.locked = True
        elif one.locked:
            library.nvmlDeviceResetGpuLockedClocks(one.handle)
            one.locked = False

    def _restore(self, device: str, one: Limited) -> str:
        if not one.set_mw:
            return ""
        try:
            if one.locked:
                self._library.nvmlDeviceResetGpuLockedClocks(one.handle)
                one.locked = False
            self._library.nvmlDeviceSetPowerManagementLimit(one.handle, one.own_mw)
        except self._library.NVMLError as error:
            self.notes[device] = f"its own power limit cannot be restored: {error}"
            return self.notes[device]
        one.set_mw, one.cap_w = 0, 0.0
        self._forget(one)
        return ""

    def restore(self) -> None:
        """For good: an order that is still on its way to a driver comes before it, or no more."""
        with self._turn:
            self._closed = True
            for device, one in self._limited.items():
                if why := self._restore(device, one):
                    log.error("limit_not_restored", device=device, why=why)

    def _keep(self, one: Limited) -> None:
        """On the disk before the GPU is touched."""
        self._folder.mkdir(parents=True, exist_ok=True)
        kept = Kept(one.uuid, one.own_mw, os.getpid(), psutil.Process().create_time())
        path = self._folder / f"{one.uuid}.json"
        with _locked(self._folder), path.with_suffix(".new").open("w") as file:
            file.write(json.dumps(asdict(kept)))
            file.flush()
            os.fsync(file.fileno())
            path.with_suffix(".new").replace(path)

    def _forget(self, one: Limited) -> None:
        """A file that stays costs nothing: the limit that it names is the GPU's own."""
        try:
            (self._folder / f"{one.uuid}.json").unlink(missing_ok=True)
        except OSError as error:
            log.error("limit_file_stays", gpu=one.uuid, why=str(error))


class NodeLimits:
    """Of a worker whose node's agent sets the limits (services/governor/node.py): it tells what holds, as the driver
    says, and sets nothing. Without an agent nothing holds, which the governor sees in its telemetry."""

    def __init__(self, nvml: Nvml) -> None:
        self.notes: dict[str, str] = {}
        self._library = nvml.library
        self._known: dict[str, tuple[Any, int, int, str]] = {}  # handle, least and own limit in mW, kind
        for device, handle in nvml.handles.items():
            try:
                least_mw, _ = self._library.nvmlDeviceGetPowerManagementLimitConstraints(handle)
                own_mw = self._library.nvmlDeviceGetPowerManagementDefaultLimit(handle)
                name = _text(self._library.nvmlDeviceGetName(handle)).lower()
            except self._library.NVMLError as error:
                self.notes[device] = f"its power limit cannot be read: {error}"
                continue
            kind = next((kind.name for kind in GPUS.values() if kind.name in name), "")
            self._known[device] = (handle, least_mw, own_mw, kind)

    def known(self, device: str) -> tuple[float, float, float, str] | None:
        """As PowerLimits.known."""
        one = self._known.get(device)
        if one is None:
            return None
        handle, least_mw, own_mw, kind = one
        try:
            now_mw = self._library.nvmlDeviceGetPowerManagementLimit(handle)
        except self._library.NVMLError as error:
            self.notes[device] = f"its power limit cannot be read: {error}"
            return None
        return (0.0 if now_mw >= own_mw else now_mw / 1e3), least_mw / 1e3, own_mw / 1e3, kind

    def set(self, device: str, cap_w: float) -> str:
        """The agent has heard the same order."""
        return "" if device in self._known else self.notes.get(device, "no such device")

    def restore(self) -> None:
        """The agent's to do."""


def restore_left(library: Any, directory: Path) -> list[str]:
    """What dead processes have left limited has its own limit again. Returns the GPUs; what fails stays and is said."""
    folder = directory / FOLDER
    if not folder.is_dir():
        return []
    with _locked(folder):
        return [
            kept.uuid for path in sorted(folder.glob("*.json")) if (kept := _restore_one(library, path)) is not None
        ]


def _restore_one(library: Any, path: Path) -> Kept | None:
    kept = _read(path)
    if kept is None or kept.alive():
        return None
    if library is None:
        log.error("limit_not_restored", gpu=kept.uuid, why="no NVIDIA library for Python is installed")
        return None
    try:
        handle = library.nvmlDeviceGetHandleByUUID(kept.uuid)
        _reset_clocks(library, handle)
        library.nvmlDeviceSetPowerManagementLimit(handle, kept.limit_mw)
    except library.NVMLError as error:
        log.error("limit_not_restored", gpu=kept.uuid, limit_w=kept.limit_mw / 1e3, why=str(error))
        return None
    path.unlink(missing_ok=True)
    log.info("limit_restored", gpu=kept.uuid, limit_w=kept.limit_mw / 1e3, left_by=kept.pid)
    return kept


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time: two that start together must not take each other's files for a dead one's."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _reset_clocks(library: Any, handle: Any) -> None:
    """Whether they were locked is not known; a GPU that cannot lock them need not be reset."""
    try:
        library.nvmlDeviceResetGpuLockedClocks(handle)
    except library.NVMLError as error:
        log.info("clocks_not_reset", why=str(error))


def _read(path: Path) -> Kept | None:
    """None: there is none, or it is not one of ours."""
    try:
        return Kept(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        log.error("limit_file_unreadable", path=str(path), why=str(error))
        return None


def _text(value: str | bytes) -> str:
    """Some versions of the library give bytes."""
    return value.decode() if isinstance(value, bytes) else value
