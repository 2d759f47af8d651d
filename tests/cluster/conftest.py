"""Three real nats-servers for a module, and a bus to them."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from headrace.mesh.bus import Bus
from headrace.mesh.config import Settings
from tests.cluster.nats_cluster import NODES, NatsCluster


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsCluster]:
    async with NatsCluster(tmp_path_factory.mktemp("nats")) as made:
        yield made


@pytest.fixture
def settings(cluster: NatsCluster) -> Settings:
    return Settings(nats_url=cluster.url, journal_replicas=NODES)


@pytest_asyncio.fixture(loop_scope="module")
async def bus(settings: Settings) -> AsyncIterator[Bus]:
    one = await Bus.open(settings, "test")
    yield one
    await one.close()
