"""Caps over a real bus: what they slow, whose word counts, and what is given back."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headrace.control.constants import H100
from headrace.control.power import decode_rate, speed_under
from headrace.core.types import Key, Prompt
from headrace.mesh import subjects
from headrace.mesh.power_limits import FOLDER, PowerLimits
from headrace.mesh.sensors import Nvml, Sensors
from headrace.v1 import governor_pb2
from headrace.worker.app import Worker
from headrace.worker.devices import Devices
from headrace.worker.plant import DEVICE, Plant
from tests.mesh.test_power_limits import OWN_MW, Driver
from tests.worker.kit import ATTEMPT, Mesh, Peer, prefill, request_id, until

pytestmark = pytest.mark.timeout(60)

ME = "both-0"
PROMPT = Prompt(tuple(range(2, 300)))


class Governor:
    """Plays the governor: sends batches, hears telemetry."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.epoch = 7
        self.sequence = 0
        self.told: list[governor_pb2.Telemetry] = []

    async def listen(self) -> None:
        await self.peer.bus.subscribe(subjects.TELEMETRY, lambda data, _headers: self._hear(data))
        await self.peer.bus.flush()

    def _hear(self, data: bytes) -> None:
        sample = governor_pb2.Telemetry.FromString(data)
        if sample.worker == ME:
            self.told.append(sample)

    def cap(self, cap_w: float, *, fallback_w: float = 0.0, lease_s: float = 30.0, device: str = DEVICE) -> None:
        one = governor_pb2.DeviceCap(device=device, cap_w=cap_w, fallback_w=fallback_w, reason="the row is over budget")
        self.send([governor_pb2.WorkerCaps(worker=ME, devices=[one])], lease_s)

    def send(self, workers: list[governor_pb2.WorkerCaps], lease_s: float = 30.0) -> None:
        self.sequence += 1
        batch = governor_pb2.CapBatch(
            governor="governor-0", epoch=self.epoch, sequence=self.sequence, lease_s=lease_s, workers=workers
        )
        self.peer.bus.send(subjects.CAPS, batch.SerializeToString())

    @property
    def reading(self) -> governor_pb2.DeviceReading:
        return self.told[-1].devices[0]


@pytest.fixture
async def governor(peer: Peer) -> Governor:
    governor = Governor(peer)
    await governor.listen()
    return governor


def a_plant(gpus: int = 1) -> Plant:
    return Plant(H100, gpus, 25.0, ME, asyncio.get_running_loop().time())


@asynccontextmanager
async def on_a_plant(mesh: Mesh, profile: str = "h100-qwen3-8b") -> AsyncIterator[tuple[Worker, Plant]]:
    plant = a_plant()
    devices = Devices(Sensors([]), plant)
    async with mesh.worker(ME, "prefill", "decode", profile=profile, devices=devices) as worker:
        yield worker, plant


async def answer(peer: Peer, max_tokens: int = 12) -> list[int]:
    key = Key(request_id(), ATTEMPT)
    peer.send(ME, prefill=prefill(key, ME, prompt=PROMPT, max_tokens=max_tokens))
    await until(lambda: key in peer.ended)
    peer.send(ME, release=key)
    return list(peer.ended[key][0].tokens)


async def seconds(worker: Worker, peer: Peer) -> tuple[float, float, list[int]]:
    """Of a prompt, and of a decoded token; and the answer."""
    tally = worker._tally
    before = tally.prefill_busy_s, tally.decode_busy_s
    tokens = await answer(peer)
    return tally.prefill_busy_s - before[0], (tally.decode_busy_s - before[1]) / (len(tokens) - 1), tokens


async def test_a_cap_slows_prefill_by_the_power_law_and_decode_not_at_all(
    mesh: Mesh, peer: Peer, governor: Governor
) -> None:
    async with on_a_plant(mesh) as (worker, plant):
        prefill_s, decode_s, tokens = await seconds(worker, peer)
        governor.cap(350.0)
        await until(lambda: plant.cap_w == 350.0)
        slow_prefill_s, same_decode_s, same_tokens = await seconds(worker, peer)
        assert slow_prefill_s / prefill_s == pytest.approx(1 / float(speed_under(H100, 350.0, H100.prefill_w)))
        assert same_decode_s == pytest.approx(decode_s)
        governor.cap(130.0)
        await until(lambda: plant.cap_w == 130.0)
        slowest_prefill_s, slow_decode_s, the_tokens = await seconds(worker, peer)
        speed = float(speed_under(H100, 130.0, H100.decode_w))
        assert slow_decode_s / decode_s == pytest.approx(1 / float(decode_rate(H100, speed)))
        assert slowest_prefill_s > slow_prefill_s
        assert tokens == same_tokens == the_tokens, "slower, and the same"


async def test_telemetry_tells_cap_speed_and_what_waits(mesh: Mesh, peer: Peer, governor: Governor) -> None:
    async with on_a_plant(mesh):
        await until(lambda: governor.told)
        reading = governor.reading
        assert (reading.source, reading.kind, reading.gpus, reading.cap_w, reading.speed) == ("plant", "h100", 1, 0, 1)
        assert reading.power_w == pytest.approx(H100.context_w, rel=0.15)
        governor.cap(300.0)
        await until(lambda: governor.reading.cap_w == 300.0, 3.0)
        keys = [Key(request_id(), ATTEMPT) for _ in range(40)]
        for key in keys:
            peer.send(ME, prefill=prefill(key, ME, prompt=Prompt(tuple(range(2, 1502))), max_tokens=200))
        await until(lambda: governor.reading.busy > 0.8, 15.0)
        assert max(one.waiting_s for one in governor.told) > 0.0
        assert governor.reading.full_w > H100.decode_w * 0.9
        assert governor.reading.power_w < 300.0 * 1.1
        assert 0.3 < governor.reading.speed <= 1.0
        for key in keys:
            peer.send(ME, cancel=key)
        await until(lambda: all(key in peer.ended for key in keys))
        for key in keys:
            peer.send(ME, release=key)
        await until(lambda: not peer.holds(ME))


async def test_a_silent_governor_leaves_its_fallback(mesh: Mesh, governor: Governor) -> None:
    async with on_a_plant(mesh) as (_, plant):
        governor.cap(350.0, fallback_w=250.0, lease_s=0.3)
        await until(lambda: plant.cap_w == 350.0)
        await until(lambda: plant.cap_w == 250.0, 2.0)
        governor.cap(500.0, fallback_w=0.0, lease_s=0.3)
        await until(lambda: plant.cap_w == 500.0)
        await until(lambda: plant.cap_w == 0.0, 2.0)


async def test_a_renewed_lease_holds(mesh: Mesh, governor: Governor) -> None:
    async with on_a_plant(mesh) as (_, plant):
        for _ in range(8):
            governor.cap(350.0, fallback_w=250.0, lease_s=0.5)
            await asyncio.sleep(0.1)
        assert plant.cap_w == 350.0


async def test_only_the_newest_word_counts(mesh: Mesh, governor: Governor) -> None:
    """A governor that was replaced, and a message that came late."""
    async with on_a_plant(mesh) as (_, plant):
        governor.sequence = 10
        governor.cap(350.0)
        await until(lambda: plant.cap_w == 350.0)
        governor.sequence = 9
        governor.cap(400.0)  # the same sequence again
        governor.epoch, governor.sequence = 6, 100
        governor.cap(450.0)
        await asyncio.sleep(0.1)
        assert plant.cap_w == 350.0
        governor.epoch, governor.sequence = 8, 0
        governor.cap(500.0)
        await until(lambda: plant.cap_w == 500.0)


async def test_a_batch_without_a_worker_frees_it(mesh: Mesh, governor: Governor) -> None:
    async with on_a_plant(mesh) as (_, plant):
        governor.cap(350.0)
        await until(lambda: plant.cap_w == 350.0)
        governor.send([governor_pb2.WorkerCaps(worker="other-0")])
        await until(lambda: plant.cap_w == 0.0)


@pytest.mark.parametrize("cap_w", [float("nan"), float("inf"), -1.0])
async def test_what_is_no_power_is_no_cap(mesh: Mesh, governor: Governor, cap_w: float) -> None:
    async with on_a_plant(mesh) as (worker, plant):
        governor.cap(cap_w)
        governor.cap(300.0, device="nvml:9")  # nobody may set that one
        await until(lambda: worker._caps._newest == (7, 2))
        await until(lambda: worker._caps._refused)
        assert plant.cap_w == 0.0


async def test_a_gpu_has_its_own_limit_again_when_the_worker_leaves(
    mesh: Mesh, governor: Governor, tmp_path: Path
) -> None:
    driver = Driver(1)
    nvml = Nvml(driver)
    driver.nvmlDeviceGetPowerUsage = lambda _handle: 250_000  # type: ignore[attr-defined]
    driver.nvmlDeviceGetTemperature = lambda _handle, _kind: 50  # type: ignore[attr-defined]
    driver.nvmlDeviceGetTotalEnergyConsumption = lambda _handle: 1_000  # type: ignore[attr-defined]
    devices = Devices(Sensors([nvml]), None, PowerLimits(nvml, ("all",), tmp_path))
    async with mesh.worker(ME, "prefill", "decode", devices=devices):
        governor.cap(300.0, device="nvml:0")
        await until(lambda: driver.limits_mw == [300_000])
        assert list((tmp_path / FOLDER).glob("*.json"))
        await until(lambda: governor.told and governor.reading.cap_w == 300.0, 3.0)
        assert (governor.reading.cap_most_w, governor.reading.kind) == (600.0, "h100")
    assert driver.limits_mw == [OWN_MW]
    assert not list((tmp_path / FOLDER).glob("*.json"))


class Slow(Sensors):
    """A driver that hangs."""

    def read(self) -> list[object]:  # type: ignore[override]
        import time

        time.sleep(3.0)
        return []


async def test_a_driver_that_hangs_costs_neither_heartbeat_nor_telemetry(
    mesh: Mesh, peer: Peer, governor: Governor
) -> None:
    async with mesh.worker(ME, "decode", devices=Devices(Slow([]))):
        await until(lambda: governor.told, 3.0)
        await until(lambda: len(peer.beats.get(ME, ())) > 3, 3.0)


FAKE = '''
"""pynvml with one GPU whose power limit lies in a file, so that it outlives processes."""
import json, os
from pathlib import Path
NVML_TEMPERATURE_GPU, NVML_CLOCK_SM = 0, 1
class NVMLError(Exception): pass
_FILE = Path(os.environ["FAKE_GPU"])
def nvmlInit(): pass
def nvmlDeviceGetCount(): return 1
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetHandleByUUID(uuid): return 0
def nvmlDeviceGetUUID(handle): return "GPU-0"
def nvmlDeviceGetName(handle): return "NVIDIA H100"
def nvmlDeviceGetPowerUsage(handle): return 250_000
def nvmlDeviceGetTemperature(handle, kind): return 50
def nvmlDeviceGetTotalEnergyConsumption(handle): return 1_000
def nvmlDeviceGetPowerManagementLimitConstraints(handle): return [200_000, 700_000]
def nvmlDeviceGetPowerManagementLimit(handle): return json.loads(_FILE.read_text())
def nvmlDeviceSetPowerManagementLimit(handle, limit):
    _FILE.with_suffix(".new").write_text(json.dumps(limit))
    _FILE.with_suffix(".new").replace(_FILE)
def nvmlDeviceGetMaxClockInfo(handle, kind): return 1980
def nvmlDeviceResetGpuLockedClocks(handle): pass
'''


@pytest.mark.chaos
async def test_a_killed_worker_leaves_its_limit_to_the_next_and_to_down(
    nats_url: str, redis_url: str, governor: Governor, tmp_path: Path
) -> None:
    (tmp_path / "pynvml.py").write_text(FAKE)
    gpu = tmp_path / "gpu.json"
    gpu.write_text(str(OWN_MW))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        "FAKE_GPU": str(gpu),
        "HEADRACE_NATS_URL": nats_url,
        "HEADRACE_REDIS_URL": redis_url,
        "HEADRACE_CELL": "test-caps",
        "HEADRACE_DATA_DIR": str(tmp_path / "mesh" / "data"),
        "HEADRACE_SHM_DIR": str(tmp_path / "shm"),
        "HEADRACE_MODEL": "profile-tiny",
        "HEADRACE_ENGINE": "profile",
    }

    async def start(caps: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.decode", "--id", ME),
            env=environment | {"HEADRACE_CAPS": caps},
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        await process.stdout.readline()
        return process

    def limit_mw() -> int:
        return int(json.loads(gpu.read_text()))

    async def capped() -> asyncio.subprocess.Process:
        process = await start("nvml:0")
        async with asyncio.timeout(10):
            while limit_mw() != 300_000:
                governor.cap(300.0, device="nvml:0")
                await asyncio.sleep(0.05)
        return process

    killed = await capped()
    killed.kill()
    await killed.wait()
    assert limit_mw() == 300_000
    after = await start("")  # has nothing to do with caps, but for this
    assert limit_mw() == OWN_MW
    after.terminate()
    await after.wait()

    stopped = await capped()
    stopped.terminate()
    assert await stopped.wait() == 0
    assert limit_mw() == OWN_MW, "SIGTERM restores"

    killed = await capped()
    os.kill(killed.pid, signal.SIGKILL)
    await killed.wait()
    down = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headrace.cli.main", "down", "--data-dir", str(tmp_path / "mesh")), env=environment
    )
    assert await down.wait() == 0
    assert limit_mw() == OWN_MW
