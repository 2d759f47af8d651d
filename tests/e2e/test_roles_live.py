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

TOKENS, WAVES, AT_ONCE = 300, 6, 12
CHANGED = ("both", "decode", "decode")


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
        seen = set[tuple[str, ...]]()
        for _ in range(WAVES):
            asked = [ask(mesh.grpc_addr, request("how long is it?", max_tokens=TOKENS)) for _ in range(AT_ONCE)]
            answers = asyncio.gather(*asked)
            while not answers.done():
                seen.add(tuple(await roles(mesh)))
                await asyncio.sleep(0.5)
            for answer in await answers:
                assert (answer.reason, answer.faults, answer.tokens) == ("length", [], alone.tokens)
            if CHANGED in seen:
                break
        assert CHANGED in seen
        await assert_free(mesh, 10.0)
