"""Power limits of GPUs that opted in: clamped, written down before they are set, given back whatever happens.

No GPU is here: the library is one that behaves as pynvml does, its GPUs a dictionary that outlives processes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.mesh.power_limits import FOLDER, NodeLimits, PowerLimits, restore_left
from headrace.mesh.sensors import Nvml

OWN_MW, LEAST_MW = 600_000, 200_000


class NVMLError(Exception):
    pass


class Driver:
    """pynvml with as many H100s as there are limits; what it refuses raises as the real one does."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_SM = 1

    def __init__(self, gpus: int = 2, name: str = "NVIDIA H100 80GB HBM3", refuses: tuple[str, ...] = ()) -> None:
        self.limits_mw = [OWN_MW] * gpus
        self.clocks_mhz: list[int | None] = [None] * gpus
        self.name = name
        self.refuses = refuses
        self.calls: list[tuple[Any, ...]] = []

    def _ask(self, call: str) -> None:
        if call in self.refuses:
            raise NVMLError("Insufficient Permissions" if "Set" in call else "Not Supported")

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return len(self.limits_mw)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        index = int(uuid.removeprefix("GPU-"))
        if index >= len(self.limits_mw):
            raise NVMLError("Not Found")
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return self.name

    def nvmlDeviceGetPowerManagementLimitConstraints(self, handle: int) -> list[int]:
        self._ask("nvmlDeviceGetPowerManagementLimitConstraints")
        return [LEAST_MW, 700_000]

    def nvmlDeviceGetPowerManagementLimit(self, handle: int) -> int:
        return self.limits_mw[handle]

    def nvmlDeviceGetMaxClockInfo(self, handle: int, kind: int) -> int:
        self._ask("nvmlDeviceGetMaxClockInfo")
        return 1980

    def nvmlDeviceSetPowerManagementLimit(self, handle: int, limit_mw: int) -> None:
        self._ask("nvmlDeviceSetPowerManagementLimit")
        if not LEAST_MW <= limit_mw <= 700_000:
            raise NVMLError("Invalid Argument")
        self.limits_mw[handle] = limit_mw

    def nvmlDeviceSetGpuLockedClocks(self, handle: int, least_mhz: int, most_mhz: int) -> None:
        self._ask("nvmlDeviceSetGpuLockedClocks")
        self.clocks_mhz[handle] = most_mhz

    def nvmlDeviceResetGpuLockedClocks(self, handle: int) -> None:
        self._ask("nvmlDeviceResetGpuLockedClocks")
        self.clocks_mhz[handle] = None


def limits(driver: Driver, directory: Path, *opted_in: str) -> PowerLimits:
    return PowerLimits(Nvml(driver), opted_in, directory)


@pytest.mark.parametrize(
    ("opted_in", "limited"),
    [((), []), (("nvml:1",), ["nvml:1"]), (("all",), ["nvml:0", "nvml:1"]), (("nvml:0", "nvml:7"), ["nvml:0"])],
)
def test_only_what_opted_in_is_touched(tmp_path: Path, opted_in: tuple[str, ...], limited: list[str]) -> None:
    driver = Driver()
    found = limits(driver, tmp_path, *opted_in)
    for device in ("nvml:0", "nvml:1"):
        assert (found.known(device) is not None) == (device in limited)
        assert (found.set(device, 300.0) == "") == (device in limited)
    assert driver.limits_mw == [300_000 if f"nvml:{n}" in limited else OWN_MW for n in range(2)]
    assert ("nvml:7" in found.notes) == ("nvml:7" in opted_in)


@pytest.mark.parametrize(
    ("cap_w", "limit_mw", "clocks", "held_w"),
    [
        (300.0, 300_000, False, 300.0),
        (900.0, OWN_MW, False, 600.0),
        (150.0, LEAST_MW, True, 150.0),
        (0.0, OWN_MW, False, 0.0),
    ],
    ids=["as it is said", "never above its own", "least, and clocks", "no cap"],
)
def test_a_cap_is_clamped(tmp_path: Path, cap_w: float, limit_mw: int, clocks: bool, held_w: float) -> None:
    driver = Driver(1)
    found = limits(driver, tmp_path, "all")
    assert found.set("nvml:0", cap_w) == ""
    assert driver.limits_mw == [limit_mw]
    assert (driver.clocks_mhz[0] is not None) == clocks
    known = found.known("nvml:0")
    assert known is not None
    assert known[0] == held_w, "what holds is what is told: the governor compares"
    found.set("nvml:0", 400.0)
    assert driver.clocks_mhz == [None], "above the least limit clocks are free"


def test_what_is_told_of_a_gpu(tmp_path: Path) -> None:
    known = limits(Driver(1), tmp_path, "all").known("nvml:0")
    assert known is not None
    assert (known[0], known[2], known[3]) == (0.0, 600.0, "h100")
    assert 100.0 < known[1] < 200.0, "locked clocks go below the driver's least limit"
    plain = limits(Driver(1, name="NVIDIA L40S"), tmp_path, "all").known("nvml:0")
    assert plain == (0.0, 200.0, 600.0, ""), "nobody knows its power law"


def test_its_own_limit_is_written_down_before_it_is_touched(tmp_path: Path) -> None:
    driver = Driver(1, refuses=("nvmlDeviceSetPowerManagementLimit",))
    seen: list[bool] = []
    driver._ask = lambda call: seen.append((tmp_path / FOLDER / "GPU-0.json").exists())  # type: ignore[method-assign]
    found = limits(driver, tmp_path, "all")
    seen.clear()
    found.set("nvml:0", 300.0)
    assert seen[0]
    kept = json.loads((tmp_path / FOLDER / "GPU-0.json").read_text())
    assert (kept["uuid"], kept["limit_mw"], kept["pid"]) == ("GPU-0", OWN_MW, os.getpid())
    found.restore()
    assert not list((tmp_path / FOLDER).glob("*.json"))
    assert driver.limits_mw == [OWN_MW]
    assert found.set("nvml:0", 300.0) == "the process ends"
    assert driver.limits_mw == [OWN_MW], "an order that came late"


@pytest.mark.parametrize("call", ["nvmlDeviceSetPowerManagementLimit", "nvmlDeviceGetPowerManagementLimitConstraints"])
def test_who_may_not_set_limits_says_so_and_leaves_nothing(tmp_path: Path, call: str) -> None:
    driver = Driver(1, refuses=(call,))
    found = limits(driver, tmp_path, "all")
    assert found.set("nvml:0", 300.0) == found.notes["nvml:0"]
    assert found.known("nvml:0") is None, "no caps can be set: the governor must not count on them"
    assert driver.limits_mw == [OWN_MW]
    assert not list((tmp_path / FOLDER).glob("*.json"))


def test_a_disk_that_takes_nothing_leaves_the_gpu_alone(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file where the folder is to be")
    driver = Driver(1)
    assert "cannot be set" in limits(driver, tmp_path, "all").set("nvml:0", 300.0)
    assert driver.limits_mw == [OWN_MW]


def test_clocks_that_cannot_be_locked_are_said(tmp_path: Path) -> None:
    driver = Driver(1, refuses=("nvmlDeviceSetGpuLockedClocks",))
    found = limits(driver, tmp_path, "all")
    assert "cannot be set" in found.set("nvml:0", 150.0)
    found.restore()
    assert driver.limits_mw == [OWN_MW]


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def leave(directory: Path, pid: int, uuid: str = "GPU-0") -> None:
    """As a process does that was killed while it held a limit."""
    (directory / FOLDER).mkdir(exist_ok=True)
    kept = {"uuid": uuid, "limit_mw": OWN_MW, "pid": pid, "started_s": 1.0}
    (directory / FOLDER / f"{uuid}.json").write_text(json.dumps(kept))


def test_the_next_start_restores_what_a_dead_process_has_left(tmp_path: Path) -> None:
    driver = Driver(1)
    driver.limits_mw, driver.clocks_mhz = [300_000], [1200]
    leave(tmp_path, dead_process())
    found = limits(driver, tmp_path)  # nothing has opted in here
    assert (driver.limits_mw, driver.clocks_mhz, found.known("nvml:0")) == ([OWN_MW], [None], None)
    assert not list((tmp_path / FOLDER).glob("*.json"))


def test_a_process_id_that_was_given_again_is_dead(tmp_path: Path) -> None:
    leave(tmp_path, os.getpid())  # started at another time
    driver = Driver(1)
    driver.limits_mw = [300_000]
    assert restore_left(driver, tmp_path) == ["GPU-0"]
    assert driver.limits_mw == [OWN_MW]


def test_one_gpu_has_one_master(tmp_path: Path) -> None:
    driver = Driver(1)
    first = limits(driver, tmp_path, "all")
    first.set("nvml:0", 300.0)
    second = limits(driver, tmp_path, "all")
    assert driver.limits_mw == [300_000], "the first one lives"
    assert second.known("nvml:0") is None
    assert str(os.getpid()) in second.notes["nvml:0"]
    second.restore()
    assert driver.limits_mw == [300_000]
    first.restore()
    assert driver.limits_mw == [OWN_MW]


def test_what_cannot_be_restored_stays_written_down(tmp_path: Path) -> None:
    leave(tmp_path, dead_process())
    leave(tmp_path, dead_process(), "GPU-9")
    driver = Driver(1, refuses=("nvmlDeviceSetPowerManagementLimit",))
    assert restore_left(driver, tmp_path) == []
    assert restore_left(None, tmp_path) == []
    assert len(list((tmp_path / FOLDER).glob("*.json"))) == 2
    assert restore_left(Driver(1), tmp_path) == ["GPU-0"]
    assert [path.stem for path in (tmp_path / FOLDER).glob("*.json")] == ["GPU-9"]


def test_a_file_that_is_none_of_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "GPU-0.json").write_text("{}")
    assert restore_left(Driver(1), tmp_path) == []


def test_the_real_library_has_all_that_is_used() -> None:
    pynvml = pytest.importorskip("pynvml")
    used = [name for name in dir(Driver) if name.startswith(("nvml", "NVML"))]
    assert [name for name in used if not hasattr(pynvml, name)] == []


def test_a_worker_whose_node_sets_limits_tells_what_holds_and_touches_nothing() -> None:
    driver = Driver()
    driver.nvmlDeviceGetPowerManagementDefaultLimit = lambda _handle: OWN_MW  # type: ignore[attr-defined]
    nvml = Nvml(driver, by_uuid=True)
    assert list(nvml.handles) == ["nvml:GPU-0", "nvml:GPU-1"]
    found = NodeLimits(nvml)
    assert found.set("nvml:GPU-0", 300.0) == ""
    assert driver.limits_mw == [OWN_MW, OWN_MW]
    assert found.known("nvml:GPU-0") == (0.0, LEAST_MW / 1e3, OWN_MW / 1e3, "h100"), "nobody has carried it out"
    driver.limits_mw[0] = 300_000
    assert found.known("nvml:GPU-0") == (300.0, LEAST_MW / 1e3, OWN_MW / 1e3, "h100")
    assert found.known("nvml:GPU-7") is None
    assert found.set("nvml:GPU-7", 300.0) == "no such device"
