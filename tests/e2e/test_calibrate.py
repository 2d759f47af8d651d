"""A small mesh of a known pace is calibrated: the pace is found, and what is written stands in for the mesh."""

from pathlib import Path

import pytest

from headrace.calibration import CalibrationError, Limits, Plan, calibrate
from headrace.calibration.writing import Origin, write
from headrace.cli.calibrate import find_shape
from headrace.cli.supervisor import Mesh
from headrace.client.aio import AsyncClient
from headrace.core.cost import StepWork
from headrace.profiles import engine_profile
from headrace.report.provenance import provenance
from headrace.sim.run import simulate
from headrace.workload.scenario import read
from tests.e2e.meshes import STEADY

# A shared machine adds a millisecond to an iteration of eight now and then, and its bursts are longer than a round.
NEAR = 0.25
PLAN = Plan(rounds=2, lengths=(64, 256, 640), batches=(2, 4), pictures=((64, 64, 1), (320, 240, 1)))
LIMITS = Limits(context_tokens=8192, block_tokens=16, chunk_tokens=8192, kv_bytes_per_token=256)


async def test_the_pace_of_a_mesh_is_found(mesh: Mesh, tmp_path: Path) -> None:
    truth = engine_profile(str(STEADY)).cost
    async with AsyncClient(mesh.grpc_addr) as client:
        shape = await find_shape(client, mesh.addresses.grpc["qm-0"], LIMITS)
        assert {pool.name: (pool.count, pool.slots) for pool in shape.pools} == {
            "encode": (1, 8),
            "prefill": (1, 8),
            "decode": (1, 8),
        }
        found = await calibrate(client, shape, PLAN)
    for work in (StepWork(0, 0, 1, 80), StepWork(0, 0, 3, 600), StepWork(600, 180_300)):
        assert found.step.step_s(work) == pytest.approx(truth.step_s(work), rel=NEAR), (work, found.observed)
    assert 0 < found.mesh["admit_s"].value < 0.1
    assert 0 < found.mesh["deliver_s"].value < 0.1
    told = Origin("desk", False, provenance(["headrace", "calibrate"], [PLAN.seed]))
    _, scenario = write(found, told, tmp_path / "mine.toml")
    assert simulate(read(scenario).changed(duration_s=5.0), "fcfs").requests.finished.all()


async def test_a_mesh_that_answers_others_is_not_calibrated(mesh: Mesh) -> None:
    async with (
        AsyncClient(mesh.grpc_addr) as client,
        client.generate("Hello", max_tokens=200, ignore_eos=True) as other,
    ):
        await anext(aiter(other))
        with pytest.raises(CalibrationError, match="answering 1 other requests"):
            await find_shape(client, mesh.addresses.grpc["qm-0"], LIMITS)
