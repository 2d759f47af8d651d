"""Roles that follow the load, on a real mesh: three processes that can both prefill and decode."""

import asyncio
from pathlib import Path

import pytest

from headrace.cli.supervisor import Mesh
from headrace.client import operator
from tests.e2e.asking import ask, request
from tests.e2e.leaks import assert_free
from tests.e2e.meshes import small_mesh

pytestmark = pytest.mark.timeout(120)

TOKENS, AT_ONCE, WITHIN_S = 300, 12, 60.0
CHANGED = ["both", "decode", "decode"]


async def roles(mesh: Mesh) -> list[str]:
    cell = await operator.cell_status(mesh.addresses.grpc["qm-0"])
    return sorted(worker.role for worker in cell.workers if "decode" in worker.stages)


async def test_a_prefill_worker_takes_decodes_and_every_answer_is_whole(tmp_path: Path) -> None:
    """Long answers fill the decode workers' eight slots; the third worker, which only prefilled, decodes beside."""
    config = small_mesh(
        tmp_path,
        colocate=("prefill", "decode"),
        prefill=3,
        decode=3,
        environment={"HEADRACE_ROLES": "elastic", "HEADRACE_SLOTS": "4"},
    )
    async with Mesh(config) as mesh:
        assert await roles(mesh) == ["decode", "decode", "prefill"]
        alone = await ask(mesh.grpc_addr, request("how long is it?", max_tokens=TOKENS))
        changed = asyncio.Event()

        async def go_on_asking() -> None:
            """No pause between two: load that ends with every wave is no pressure on a fast machine."""
            while not changed.is_set():
                answer = await ask(mesh.grpc_addr, request("how long is it?", max_tokens=TOKENS))
                assert (answer.reason, answer.faults, answer.tokens) == ("length", [], alone.tokens)

        async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(go_on_asking())
            while not changed.is_set():
                await asyncio.sleep(0.5)
                if await roles(mesh) == CHANGED:
                    changed.set()
        await assert_free(mesh, 10.0)
