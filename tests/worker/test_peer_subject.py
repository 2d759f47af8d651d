"""What a worker does that another worker tells it: offers and joins, and nothing else, whoever it says leads."""

import asyncio

import pytest

from headrace.core.commands import WorkBatch
from headrace.core.types import Key
from headrace.mesh import subjects
from headrace.wire.work import work_batch_to_proto
from tests.worker.kit import ATTEMPT, Mesh, Peer, is_empty, prefill, request_id, until

pytestmark = pytest.mark.timeout(60)


async def test_a_peer_commands_nothing(mesh: Mesh, peer: Peer) -> None:
    """A taken-over worker asks for work, says what to cancel, and claims a leadership of its own: all of it in vain."""
    mine, other = Key(request_id(), ATTEMPT), Key(request_id(), ATTEMPT)
    async with mesh.worker("both-0", "prefill", "decode", profile="h100-qwen3-8b"):
        peer.send("both-0", prefill=prefill(mine, "both-0", max_tokens=12))
        batch = WorkBatch(10**9, prefill=(prefill(other, "both-0", max_tokens=2),), cancel=(mine,), release=(mine,))
        peer.bus.send(subjects.peer("both-0"), work_batch_to_proto(batch).SerializeToString())
        await until(lambda: mine in peer.ended)
        assert len(peer.ended[mine][0].tokens) == 12
        await asyncio.sleep(0.1)
        assert other not in peer.ended
        peer.send("both-0", release=mine)  # the leader of epoch 1 is still obeyed
        await until(lambda: is_empty(mesh, "both-0"))
