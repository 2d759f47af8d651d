"""Every process killed, and apart from that stopped for ten seconds, at one transition each, drawn by seed.

The whole matrix is `make chaos`.
"""

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from headrace.cli.supervisor import Mesh
from tests.chaos.faults import STAGES, Fault, Trial
from tests.chaos.matrix import SERVER_FAULTS, drawn
from tests.e2e.meshes import chaos_mesh

SEED = int(os.environ.get("HEADRACE_CHAOS_SEED", "1"))

# A stop of ten seconds, the recovery, the same questions again undisturbed.
pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trial(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Trial]:
    async with Mesh(chaos_mesh(tmp_path_factory.mktemp("chaos"))) as mesh:
        yield Trial(mesh, STAGES)


@pytest.mark.parametrize("fault", [*drawn(SEED), *SERVER_FAULTS], ids=lambda fault: str(fault.name))
async def test_every_request_ends_once_and_whole(trial: Trial, fault: Fault) -> None:
    (await trial.inject(fault, SEED)).check()
