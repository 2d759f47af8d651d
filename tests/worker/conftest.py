"""What every test of workers over a real bus starts with: the other side of it, and a mesh to put workers in."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.mesh.bus import Bus
from tests.worker.kit import Mesh, Peer


@pytest.fixture
async def peer(nats_url: str) -> AsyncIterator[Peer]:
    bus = await Bus.connect(nats_url, "peer")
    peer = Peer(bus)
    await peer.listen("gateway-0")
    yield peer
    await bus.close()


@pytest.fixture
def mesh(nats_url: str, redis_url: str, tmp_path: Path) -> Mesh:
    return Mesh(nats_url, redis_url, tmp_path)
