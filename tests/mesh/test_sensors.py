"""Sensors: what is there is read, counters are unwrapped, what is not there is said in words."""

from pathlib import Path

import pytest

from headrace.mesh.sensors import UNKNOWN, DeviceReading, Hwmon, Nvml, Rapl, Sensors


class NvmlError(Exception):
    pass


class TwoGpus:
    """Looks like pynvml on a machine whose second GPU does not tell its energy."""

    NVMLError = NvmlError
    NVML_TEMPERATURE_GPU = 0

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        return 70_500 + handle

    def nvmlDeviceGetTemperature(self, handle: int, _kind: int) -> int:
        return 40 + handle

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        if handle == 1:
            raise NvmlError("Not Supported")
        return 5_000


class NoDriver(TwoGpus):
    def nvmlInit(self) -> None:
        raise NvmlError("Driver Not Loaded")


def test_gpus() -> None:
    nvml = Nvml(TwoGpus())
    assert nvml.note == ""
    assert nvml.read() == [
        DeviceReading("nvml:0", "nvml", 70.5, 40.0, 5.0),
        DeviceReading("nvml:1", "nvml", 70.501, 41.0, UNKNOWN, "energy: Not Supported"),
    ]


@pytest.mark.parametrize(
    ("visible", "devices"),
    [(None, ["nvml:0", "nvml:1"]), ("1", ["nvml:1"]), ("GPU-0", ["nvml:0"]), ("", []), ("7", [])],
)
def test_a_worker_reports_the_gpus_it_may_use(visible: str | None, devices: list[str]) -> None:
    nvml = Nvml(TwoGpus(), visible)
    assert [reading.device for reading in nvml.read()] == devices
    assert bool(nvml.note) == (not devices)


def test_no_driver_is_said() -> None:
    nvml = Nvml(NoDriver())
    assert nvml.read() == []
    assert "Driver Not Loaded" in nvml.note


def write(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def test_rapl_energy_is_unwrapped_and_power_is_its_slope(tmp_path: Path) -> None:
    zone = tmp_path / "intel-rapl:0"
    write(zone / "name", "package-0")
    write(zone / "max_energy_range_uj", 100_000_000)
    write(tmp_path / "intel-rapl:0:0" / "name", "core")  # part of its package: not counted twice
    times = iter([0.0, 2.0, 4.0])
    rapl = Rapl(tmp_path, lambda: next(times))
    got = []
    for energy_uj in (70_000_000, 90_000_000, 10_000_000):
        write(zone / "energy_uj", energy_uj)
        got += rapl.read()
    assert [(one.power_w, one.energy_j) for one in got] == [(UNKNOWN, 0.0), (10.0, 20.0), (10.0, 40.0)]
    assert got[0].device == "rapl:package-0"


def test_rapl_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    write(tmp_path / "intel-rapl:0" / "name", "package-0")
    assert Rapl(tmp_path).read() == [
        DeviceReading("rapl:package-0", "rapl", unreadable="No such file or directory"),
    ]


def test_hwmon_gives_the_hottest_sensor_of_each_chip(tmp_path: Path) -> None:
    write(tmp_path / "hwmon0" / "name", "acpi")
    write(tmp_path / "hwmon1" / "name", "k10temp")
    write(tmp_path / "hwmon1" / "temp1_input", 51_250)
    write(tmp_path / "hwmon1" / "temp2_input", 61_500)
    write(tmp_path / "hwmon1" / "temp3_input", "?")
    (reading,) = Hwmon(tmp_path).read()
    assert (reading.device, reading.temp_c) == ("hwmon:k10temp", 61.5)
    assert reading.unreadable.startswith("temp3_input: invalid literal")


def test_a_machine_without_sensors_says_so(tmp_path: Path) -> None:
    sensors = Sensors([Nvml(NoDriver()), Rapl(tmp_path), Hwmon(tmp_path)])
    assert sensors.read() == []
    assert [note.split(":")[0] for note in sensors.notes()] == ["nvml", "rapl", "hwmon"]


def test_all_readers_are_read(tmp_path: Path) -> None:
    write(tmp_path / "hwmon0" / "name", "k10temp")
    write(tmp_path / "hwmon0" / "temp1_input", 50_000)
    sensors = Sensors([Nvml(TwoGpus()), Hwmon(tmp_path)])
    assert [reading.device for reading in sensors.read()] == ["nvml:0", "nvml:1", "hwmon:k10temp"]


def test_the_real_library_has_all_that_is_used() -> None:
    pynvml = pytest.importorskip("pynvml")
    used = [name for name in dir(TwoGpus) if name.startswith(("nvml", "NVML"))]
    assert [name for name in used if not hasattr(pynvml, name)] == []


def test_this_machine_is_read_without_an_exception() -> None:
    sensors = Sensors.of_this_machine()
    assert len(sensors.read()) + len(sensors.notes()) > 0
