"""What a worker tells of the devices that it runs on."""

from pathlib import Path

import pytest

from headrace.mesh import subjects
from headrace.mesh.bus import Bus
from headrace.mesh.sensors import Hwmon, Sensors
from headrace.v1 import governor_pb2
from headrace.worker.devices import Devices
from tests.worker.kit import Mesh, until

pytestmark = pytest.mark.timeout(30)


async def test_telemetry_carries_device_readings(nats_url: str, redis_url: str, tmp_path: Path) -> None:
    chip = tmp_path / "hwmon" / "hwmon0"
    chip.mkdir(parents=True)
    (chip / "name").write_text("k10temp\n")
    (chip / "temp1_input").write_text("61500\n")
    told: list[governor_pb2.Telemetry] = []
    bus = await Bus.connect(nats_url, "listener")
    await bus.subscribe(subjects.TELEMETRY, lambda data, _: told.append(governor_pb2.Telemetry.FromString(data)))
    await bus.flush()
    async with Mesh(nats_url, redis_url, tmp_path).worker(
        "hot-0", "decode", devices=Devices(Sensors([Hwmon(tmp_path / "hwmon")]))
    ):
        await until(lambda: any(one.devices for one in told if one.worker == "hot-0"))
    reading = next(one for one in told if one.worker == "hot-0" and one.devices).devices[0]
    assert (reading.device, reading.source, reading.temp_c) == ("hwmon:k10temp", "hwmon", 61.5)
    assert reading.power_w < 0, "what cannot be read is not guessed"
    await bus.close()
