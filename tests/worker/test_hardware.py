"""Which devices a worker has: a plant for a profile of known GPUs, the machine's own for a real engine."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup
from headrace.mesh.sensors import DeviceReading, Rapl, Sensors
from headrace.profiles import engine_profile
from headrace.worker.devices import Devices
from headrace.worker.hardware import open_devices

H100 = engine_profile("h100-qwen3-8b")
ZERO = engine_profile("zero")
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}


def settings(tmp_path: Path, **told: str) -> Settings:
    env = {f"HEADRACE_{name.upper()}": text for name, text in told.items()}
    return replace(Settings.from_env(env), data_dir=tmp_path)


@pytest.mark.parametrize(
    ("told", "profile", "kinds"),
    [
        ({}, H100, [("h100", 1)]),
        ({}, engine_profile("a100/llama-2-70b/tp8"), [("a100", 8)]),
        ({}, ZERO, []),
        ({"plant": "a100x4"}, ZERO, [("a100", 4)]),
        ({"plant": "off"}, H100, []),
    ],
)
async def test_a_profile_plays_its_gpus(
    tmp_path: Path, told: dict[str, str], profile: object, kinds: list[tuple[str, int]]
) -> None:
    devices = open_devices("w-0", settings(tmp_path, engine="profile", **told), profile, NO_GPU)  # type: ignore[arg-type]
    assert [(one.kind, one.gpus) for one in await devices.read() if one.source == "plant"] == kinds


async def test_a_real_engine_plays_nothing(tmp_path: Path) -> None:
    devices = open_devices("w-0", settings(tmp_path, plant="h100"), None, NO_GPU)
    assert all(one.source != "plant" for one in await devices.read())
    assert devices.notes(), "what cannot be read is said"


async def test_warm_air_makes_a_warm_plant(tmp_path: Path) -> None:
    devices = open_devices("w-0", settings(tmp_path, engine="profile", plant_inlet_c="45"), H100, NO_GPU)
    (reading,) = await devices.read()
    assert 45.0 < reading.temp_c < 60.0


@pytest.mark.parametrize(
    "told", [{"plant": "h200"}, {"plant_inlet_c": "hot"}, {"caps": "gpu0"}, {"caps": "nvml:0,rapl"}]
)
async def test_a_wrong_setting_names_its_variable(tmp_path: Path, told: dict[str, str]) -> None:
    with pytest.raises(BadSetup, match=f"HEADRACE_{next(iter(told)).upper()}"):
        open_devices("w-0", settings(tmp_path, engine="profile", **told), H100, NO_GPU)


async def test_of_a_package_a_worker_has_the_share_of_its_processor_time(tmp_path: Path) -> None:
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    for name, text in (("name", "package-0"), ("max_energy_range_uj", "1000000000"), ("energy_uj", "0")):
        (zone / name).write_text(text)
    devices = Devices(Sensors([Rapl(tmp_path)]), metered="rapl")
    assert (await devices.read())[0].device == "rapl:package-0"
    for second in range(1, 4):
        end_s = asyncio.get_running_loop().time() + 0.05
        while asyncio.get_running_loop().time() < end_s:
            pass  # computes
        (zone / "energy_uj").write_text(str(second * 5_000_000))
        devices.iteration(0.0, 0.05, None)
        await devices.read()
    account = devices.account
    assert 0 < account.computed_j + account.idle_j <= 15.0, "no more than the package took, for others may compute"
    assert account.decode_j > 0


class Silent(Sensors):
    """What a driver says that tells nothing."""

    def read(self) -> list[DeviceReading]:
        return [DeviceReading("nvml:0", "nvml", unreadable="power: Not Supported")]


async def test_what_cannot_be_read_costs_nothing() -> None:
    devices = Devices(Silent([]), metered="nvml")
    for _ in range(3):
        await devices.read()
        assert devices.iteration(0.1, 0.1, None) == (0.0, 0.0)
        assert devices.encoding(0.1, None) == 0.0
