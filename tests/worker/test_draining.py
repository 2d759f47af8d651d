"""A worker that is to stop: it ends what it has, and what was on its way to it, and takes leave."""

import asyncio

import pytest

from headrace.core.types import Key
from headrace.v1 import common_pb2
from headrace.worker.draining import DRAIN_LOOK_S, UNLED_S
from tests.worker.kit import ATTEMPT, Mesh, Peer, prefill, request_id, until

pytestmark = pytest.mark.timeout(60)


async def test_drains_what_it_holds_and_takes_leave(mesh: Mesh, peer: Peer) -> None:
    key = Key(request_id(), ATTEMPT)
    async with mesh.worker("both-0", "prefill", "decode", profile="h100-qwen3-8b"):
        peer.send("both-0", prefill=prefill(key, "both-0", max_tokens=60))
        await until(lambda: peer.tokens.get(key))
        mesh.stop["both-0"].set()
        await until(lambda: key in peer.ended)
        assert peer.ended[key][0].end.reason == common_pb2.FINISH_REASON_LENGTH
        await until(lambda: peer.beats["both-0"][-1].draining)
        assert not peer.beats["both-0"][-1].leaving, "the end is not stored yet"
        peer.send("both-0", release=key)
        await mesh.tasks["both-0"]
        await until(lambda: peer.beats["both-0"][-1].leaving)
        assert not peer.beats["both-0"][-1].holds


async def test_what_was_sent_before_its_drain_was_known_is_done(mesh: Mesh, peer: Peer) -> None:
    """The queue manager stood still: the worker holds nothing, and does not leave before it is told that it may."""
    key, peer.dismisses = Key(request_id(), ATTEMPT), False
    async with mesh.worker("both-0", "prefill", "decode"):
        await until(lambda: "both-0" in peer.beats)
        mesh.stop["both-0"].set()
        await until(lambda: peer.beats["both-0"][-1].draining)
        await asyncio.sleep(10 * DRAIN_LOOK_S)
        peer.send("both-0", prefill=prefill(key, "both-0"))
        await until(lambda: key in peer.ended)
        peer.dismisses = True
        peer.send("both-0", release=key)
        await mesh.tasks["both-0"]


async def test_where_nobody_leads_a_worker_leaves_by_itself(mesh: Mesh, peer: Peer) -> None:
    peer.dismisses = False
    async with mesh.worker("both-0", "prefill", "decode"):
        await until(lambda: "both-0" in peer.beats)
        mesh.stop["both-0"].set()
        await asyncio.wait_for(mesh.tasks["both-0"], UNLED_S + 5.0)
        await until(lambda: peer.beats["both-0"][-1].leaving)
