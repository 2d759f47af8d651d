"""The journal on three real nats-servers: what a replica lacks."""

import pytest

from headrace.mesh.bus import Bus
from headrace.mesh.config import Settings
from headrace.mesh.journal import Journal
from tests.cluster.nats_cluster import ids

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]


async def test_what_was_accepted_is_found_at_once_and_what_was_deleted_is_gone(bus: Bus, settings: Settings) -> None:
    """Replicas answer reads, and are a moment behind: without the leader's word one of a hundred was not found."""
    journal = await Journal.open(bus, settings)
    appended = {}
    for name in ids(0, 500):
        appended[name] = (await journal.append(name, name.encode())).seq
        assert await journal.record(name) == name.encode()
    await journal.delete(list(appended.values()))
    assert await journal.live_records() == 0
