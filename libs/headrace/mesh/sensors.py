"""Power, energy and temperature of this machine: NVML (GPUs), RAPL (packages), hwmon (temperatures).

What cannot be read is said in words, once per source and per device, and never guessed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from headrace.v1 import governor_pb2

UNKNOWN = -1.0  # as in the protocol: cannot be read
POWERCAP = Path("/sys/class/powercap")
HWMON = Path("/sys/class/hwmon")


@dataclass(frozen=True, slots=True)
class DeviceReading:
    device: str  # "nvml:0", "rapl:package-0", "hwmon:k10temp"
    source: str
    power_w: float = UNKNOWN
    temp_c: float = UNKNOWN
    energy_j: float = UNKNOWN  # counter, of all its GPUs together
    unreadable: str = ""
    cap_w: float = 0.0  # that holds now, of one GPU as all that follow; 0: none
    cap_least_w: float = 0.0  # 0: caps cannot be set
    cap_most_w: float = 0.0
    speed: float = 0.0  # share of the full one at which it computes; 0: not known
    kind: str = ""
    full_w: float = UNKNOWN  # at full speed, doing what it did in the last second
    busy: float = UNKNOWN  # share of the last second in which it computed
    gpus: int = 1


def to_proto(reading: DeviceReading) -> governor_pb2.DeviceReading:
    return governor_pb2.DeviceReading(**{field.name: getattr(reading, field.name) for field in FIELDS})


FIELDS = fields(DeviceReading)  # named as in the protocol


class Sensors:
    """All readers of a machine. read() takes some milliseconds with GPUs: call it off the event loop."""

    def __init__(self, readers: list["Nvml | Rapl | Hwmon"]) -> None:
        self._readers = readers

    @staticmethod
    def of_this_machine() -> "Sensors":
        return Sensors([Nvml.open(), Rapl(), Hwmon()])

    def read(self) -> list[DeviceReading]:
        return [reading for reader in self._readers for reading in reader.read()]

    def notes(self) -> list[str]:
        """Which sources this machine does not have or does not let us read."""
        return [reader.note for reader in self._readers if reader.note]


class Nvml:
    def __init__(self, library: Any, visible: str | None = None, *, by_uuid: bool = False) -> None:
        """library: pynvml, or what looks like it. visible: CUDA_VISIBLE_DEVICES; None: all. by_uuid: devices are called
        nvml:GPU-..., which is the same in every container of a machine, in the place of nvml:0."""
        self.note = ""
        self.library = library
        self._by_uuid = by_uuid
        self.handles: dict[str, Any] = {}
        if library is None:
            self.note = "nvml: no NVIDIA library for Python is installed"
            return
        try:
            library.nvmlInit()
            self._find(visible)
        except library.NVMLError as error:
            self.note = f"nvml: no NVIDIA GPU can be read ({error})"

    @staticmethod
    def open(visible: str | None = None, *, by_uuid: bool = False) -> "Nvml":
        try:
            import pynvml
        except ImportError:
            return Nvml(None)
        return Nvml(pynvml, visible, by_uuid=by_uuid)

    def _find(self, visible: str | None) -> None:
        wanted = None if visible is None else [part.strip() for part in visible.split(",") if part.strip()]
        for index in range(self.library.nvmlDeviceGetCount()):
            handle = self.library.nvmlDeviceGetHandleByIndex(index)
            uuid = self.library.nvmlDeviceGetUUID(handle)
            if wanted is None or str(index) in wanted or uuid in wanted:
                self.handles[f"nvml:{uuid if self._by_uuid else index}"] = handle
        if not self.handles:
            self.note = "nvml: no GPU is visible to this process"

    def read(self) -> list[DeviceReading]:
        return [self._read_one(device, handle) for device, handle in self.handles.items()]

    def _read_one(self, device: str, handle: Any) -> DeviceReading:
        library, missing = self.library, list[str]()

        def value(what: str, read: Callable[[], float], scale: float) -> float:
            try:
                return read() / scale
            except library.NVMLError as error:
                missing.append(f"{what}: {error}")
                return UNKNOWN

        power_w = value("power", lambda: library.nvmlDeviceGetPowerUsage(handle), 1e3)
        kind = library.NVML_TEMPERATURE_GPU
        temp_c = value("temperature", lambda: library.nvmlDeviceGetTemperature(handle, kind), 1.0)
        energy_j = value("energy", lambda: library.nvmlDeviceGetTotalEnergyConsumption(handle), 1e3)
        return DeviceReading(device, "nvml", power_w, temp_c, energy_j, "; ".join(missing))


@dataclass(slots=True)
class _Counter:
    """A RAPL energy counter, unwrapped; its power is the mean since the last reading."""

    last_uj: int
    last_s: float
    energy_j: float = 0.0
    power_w: float = UNKNOWN

    def advance(self, now_uj: int, now_s: float, wrap_uj: int) -> None:
        grown_j = (now_uj - self.last_uj if now_uj >= self.last_uj else now_uj - self.last_uj + wrap_uj) / 1e6
        self.energy_j += grown_j
        if now_s > self.last_s:
            self.power_w = grown_j / (now_s - self.last_s)
        self.last_uj, self.last_s = now_uj, now_s


class Rapl:
    def __init__(self, root: Path = POWERCAP, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._zones = sorted(path for path in root.glob("intel-rapl:*") if path.name.count(":") == 1)
        self._counters: dict[Path, _Counter] = {}
        self.note = "" if self._zones else f"rapl: this machine shows no package energy under {root}"

    def read(self) -> list[DeviceReading]:
        return [self._read_one(zone) for zone in self._zones]

    def _read_one(self, zone: Path) -> DeviceReading:
        device = "rapl:" + (_text(zone / "name") or zone.name)
        try:
            now_uj = int((zone / "energy_uj").read_text())
            wrap_uj = int((zone / "max_energy_range_uj").read_text())
        except (OSError, ValueError) as error:
            return DeviceReading(device, "rapl", unreadable=_why(error))
        now_s = self._clock()
        counter = self._counters.setdefault(zone, _Counter(now_uj, now_s))
        counter.advance(now_uj, now_s, wrap_uj)
        return DeviceReading(device, "rapl", power_w=counter.power_w, energy_j=counter.energy_j)


class Hwmon:
    def __init__(self, root: Path = HWMON) -> None:
        chips = sorted(root.glob("hwmon*"), key=lambda path: int(path.name.removeprefix("hwmon") or 0))
        self._chips = [chip for chip in chips if list(chip.glob("temp*_input"))]
        self.note = "" if self._chips else f"hwmon: this machine shows no temperatures under {root}"

    def read(self) -> list[DeviceReading]:
        return [self._read_one(chip) for chip in self._chips]

    def _read_one(self, chip: Path) -> DeviceReading:
        """The hottest of a chip's sensors."""
        device = "hwmon:" + (_text(chip / "name") or chip.name)
        temps_c, missing = [], list[str]()
        for path in sorted(chip.glob("temp*_input")):
            try:
                temps_c.append(int(path.read_text()) / 1e3)
            except (OSError, ValueError) as error:
                missing.append(f"{path.name}: {_why(error)}")
        return DeviceReading(device, "hwmon", temp_c=max(temps_c, default=UNKNOWN), unreadable="; ".join(missing))


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _why(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "permission denied: readable by root alone"
    return str(error.strerror if isinstance(error, OSError) else error)
