"""An encoder, a prefill worker and the queue manager killed while prefill runs ahead of encoding.

The whole of it is `make chaos ARGS="--mesh overlap"`.
"""

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from headrace.cli.supervisor import Mesh
from headrace.client import operator
from tests.chaos.faults import Fault, Trial
from tests.chaos.matrix import drawn_overlaps
from tests.chaos.overlap import LOAD, overlap_mesh

SEED = int(os.environ.get("HEADRACE_CHAOS_SEED", "1"))

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trial(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Trial]:
    async with Mesh(overlap_mesh(tmp_path_factory.mktemp("chaos-overlap"))) as mesh:
        yield Trial(mesh, LOAD)


@pytest.mark.parametrize("fault", drawn_overlaps(SEED), ids=lambda fault: str(fault.name))
async def test_every_request_ends_once_and_whole(trial: Trial, fault: Fault) -> None:
    (await trial.inject(fault, SEED)).check()
    told = await operator.inspect(trial.mesh.addresses.grpc["qm-0"])
    assert dict(told.operations)["overlap"] > 0
