"""The queue manager, and a worker in the middle of an eviction, a restore and a swap, killed under a planner.

A transition of each kind, drawn by seed; the whole matrix is `make chaos ARGS="--mesh operations"`.
"""

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from headrace.cli.supervisor import Mesh
from tests.chaos.faults import Fault, Trial
from tests.chaos.matrix import drawn_operations
from tests.chaos.operations import LOAD, operations_mesh

SEED = int(os.environ.get("HEADRACE_CHAOS_SEED", "1"))

# The recovery under load, two rounds of long answers, and once all the questions undisturbed.
pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trial(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Trial]:
    async with Mesh(operations_mesh(tmp_path_factory.mktemp("chaos-operations"))) as mesh:
        yield Trial(mesh, LOAD)


@pytest.mark.parametrize("fault", drawn_operations(SEED), ids=lambda fault: str(fault.name))
async def test_every_request_goes_on_whole(trial: Trial, fault: Fault) -> None:
    (await trial.inject(fault, SEED)).check()
