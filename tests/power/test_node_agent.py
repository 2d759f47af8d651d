"""The governor's agent on a node: caps of this machine's GPUs are carried out over a real bus, and given back."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from headrace.mesh import permissions, subjects
from headrace.mesh.bus import Bus
from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup
from headrace.mesh.lifecycle import Lifecycle
from headrace.mesh.sensors import Nvml
from headrace.v1 import governor_pb2
from services.governor.node import mine, serve
from tests.mesh.test_power_limits import OWN_MW, Driver


def batch(sequence: int, caps: dict[str, float], lease_s: float = 5.0) -> governor_pb2.CapBatch:
    """Of two workers, each with one of the devices."""
    workers = [
        governor_pb2.WorkerCaps(
            worker=f"worker-{at}",
            devices=[governor_pb2.DeviceCap(device=device, cap_w=watts, fallback_w=350.0, reason="row-0 over budget")],
        )
        for at, (device, watts) in enumerate(caps.items())
    ]
    return governor_pb2.CapBatch(
        governor="g", epoch=1, sequence=sequence, sent_s=time.time(), lease_s=lease_s, workers=workers
    )


def test_orders_are_this_machines_whichever_worker_has_the_gpu() -> None:
    found = mine(frozenset({"nvml:GPU-1"}), batch(1, {"nvml:GPU-0": 300.0, "nvml:GPU-1": 310.0, "plant:0": 1.0}))
    assert [(one.device, one.cap_w) for one in found] == [("nvml:GPU-1", 310.0)]


def test_its_user_on_the_bus_hears_caps_and_says_nothing() -> None:
    assert permissions.role_of("services.governor.node") == "node"
    assert permissions.ROLES["node"] == permissions.Role((), (subjects.CAPS,))


async def test_a_node_without_gpus_is_told_so() -> None:
    with pytest.raises(BadSetup, match="no NVIDIA library"):
        await serve("node-a", Settings(), Nvml(None, by_uuid=True), Lifecycle())


@pytest.mark.timeout(30)
async def test_caps_hold_fall_back_and_are_given_back(nats_url: str, tmp_path: Path) -> None:
    driver, life = Driver(), Lifecycle()
    env = {**os.environ, "HEADRACE_NATS_URL": nats_url, "HEADRACE_DATA_DIR": str(tmp_path), "HEADRACE_CAPS": "all"}
    agent = asyncio.create_task(serve("node-a", Settings.from_env(env), Nvml(driver, by_uuid=True), life))
    governor = await Bus.connect(nats_url, "governor")

    async def until(limits_mw: list[int], order: governor_pb2.CapBatch | None) -> None:
        async with asyncio.timeout(10.0):
            while driver.limits_mw != limits_mw:
                if order is not None:
                    governor.send(subjects.CAPS, order.SerializeToString())
                await asyncio.sleep(0.05)

    await until([300_000, OWN_MW], batch(1, {"nvml:GPU-0": 300.0, "nvml:GPU-9": 250.0}))
    assert list((tmp_path / "power-limits").glob("GPU-0.json")), "its own limit is kept before it is touched"
    await until([OWN_MW, 320_000], batch(2, {"nvml:GPU-1": 320.0}, lease_s=0.3))
    await until([OWN_MW, 350_000], None)  # the governor is silent: the fallback
    life.stopping.set()
    await asyncio.wait_for(agent, 10.0)
    assert driver.limits_mw == [OWN_MW, OWN_MW]
    assert not list((tmp_path / "power-limits").glob("*.json"))
    await governor.close()
