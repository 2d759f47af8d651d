"""KV caches offered while they are computed: the same tokens with and without, and nothing left whatever goes wrong."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.core.commands import JoinCommand, OfferCommand
from headrace.core.types import Key, TensorHandle
from headrace.mesh import subjects
from headrace.mesh.transfer import Draft, Tensor, TensorStore
from headrace.v1 import queue_pb2
from headrace.wire.convert import handle_from_proto
from headrace.worker.kvwire import KvTravel
from headrace.worker.offers import UNJOINED_S, Offers
from tests.worker.kit import ATTEMPT, PIPELINED, Mesh, Peer, is_empty, prefill, request_id, until

pytestmark = pytest.mark.timeout(60)
PROFILE = "h100-qwen3-8b"  # a KV cache of 147 KB a token
LONG = "count to ten " * 10


async def listen_in(peer: Peer, worker: str) -> list[queue_pb2.WorkBatch]:
    """What the worker is told."""
    told: list[queue_pb2.WorkBatch] = []

    def hear(data: bytes, _headers: Mapping[str, str]) -> None:
        told.append(queue_pb2.WorkBatch.FromString(data))

    for subject in (subjects.work(worker), subjects.peer(worker)):
        await peer.bus.subscribe(subject, hear)
    return told


async def answer(mesh: Mesh, peer: Peer, hosts: tuple[str, str], travel: KvTravel) -> list[int]:
    key = Key(request_id(), ATTEMPT)
    async with (
        mesh.worker("prefill-0", "prefill", host=hosts[0], profile=PROFILE, travel=travel),
        mesh.worker("decode-0", "decode", host=hosts[1], profile=PROFILE),
    ):
        peer.send("prefill-0", prefill=prefill(key, "decode-0", max_tokens=6, prompt=LONG))
        await until(lambda: key in peer.ended)
        for worker in ("prefill-0", "decode-0"):
            peer.send(worker, release=key)
        await until(lambda: is_empty(mesh, "prefill-0") and is_empty(mesh, "decode-0"))
    return list(peer.ended[key][0].tokens)


@pytest.mark.parametrize("hosts", [("here", "here"), ("here", "there")], ids=["mapped file", "gRPC"])
async def test_the_same_tokens_with_and_without(mesh: Mesh, peer: Peer, hosts: tuple[str, str]) -> None:
    told = await listen_in(peer, "decode-0")
    without = await answer(mesh, peer, hosts, KvTravel(None))
    assert not [batch for batch in told if batch.offer]
    assert await answer(mesh, peer, hosts, PIPELINED) == without
    offer = next(batch.offer[0] for batch in told if batch.offer)
    join = next(batch.join[0] for batch in reversed(told) if batch.join)
    assert (offer.key, offer.kv.id, offer.kv.xxh3) == (join.request.key, join.kv.id, 0)
    assert await answer(mesh, peer, hosts, KvTravel(64 << 20)) == without, "too small to be worth it"
    assert sum(len(batch.offer) for batch in told) == 1


@pytest.fixture
async def elsewhere(tmp_path: Path) -> AsyncIterator[TensorStore]:
    """A prefill worker's tensors, on the decode worker's host."""
    store = TensorStore(tmp_path / "shm-here", "prefill-9", "cafe", "here")
    yield store
    await store.close()


def growing(store: TensorStore, key: Key, size_bytes: int = 1 << 20) -> tuple[Draft, TensorHandle]:
    draft = store.create(f"kv.{key.request_id}.{key.attempt}", size_bytes)
    draft.ready(size_bytes // 2)
    return draft, store.offer(draft, Tensor("uint8", (size_bytes,), "profile profile-tiny", 4, 4))


@pytest.mark.parametrize("over", ["cancel", "release"])
async def test_over_before_it_came(mesh: Mesh, peer: Peer, elsewhere: TensorStore, over: str) -> None:
    key = Key(request_id(), ATTEMPT)
    draft, handle = growing(elsewhere, key)
    async with mesh.worker("decode-0", "decode") as decode:
        peer.send("decode-0", offer=OfferCommand(key, handle))
        await until(lambda: decode.state().offers == 1)
        peer.send("decode-0", offer=OfferCommand(key, handle))  # once more
        peer.send("decode-0", **{over: key})
        await until(lambda: is_empty(mesh, "decode-0"))
        peer.send("decode-0", offer=OfferCommand(key, handle))  # late
        peer.send("decode-0", offer=OfferCommand(replace(key, request_id=request_id()), handle))
        await until(lambda: decode.state().offers == 1)
        assert not decode.holds.requests
        elsewhere.drop(draft.id)
        await until(lambda: is_empty(mesh, "decode-0"))


async def test_a_newer_attempt_takes_the_place(mesh: Mesh, peer: Peer, elsewhere: TensorStore) -> None:
    key = Key(request_id(), ATTEMPT)
    newer = replace(key, attempt=ATTEMPT + 1)
    draft, handle = growing(elsewhere, key)
    async with mesh.worker("both-0", "prefill", "decode") as both:
        peer.send("both-0", offer=OfferCommand(key, handle))
        await until(lambda: both.state().offers == 1)
        peer.send("both-0", prefill=prefill(newer, "both-0"))
        await until(lambda: newer in peer.ended)
        assert both.state().offers == 0
        peer.send("both-0", offer=OfferCommand(key, handle))
        peer.send("both-0", release=newer)
        await until(lambda: is_empty(mesh, "both-0"))
    elsewhere.drop(draft.id)


@pytest.mark.parametrize("fate", ["dropped", "never was", "of another size"])
async def test_a_broken_offer_costs_nothing(
    mesh: Mesh, peer: Peer, elsewhere: TensorStore, fate: str, tmp_path: Path
) -> None:
    """What was offered cannot be used: the join pulls all of what is sealed, or refuses what differs."""
    key = Key(request_id(), ATTEMPT)
    async with mesh.worker("prefill-0", "prefill"), mesh.worker("decode-0", "decode") as decode:
        command = prefill(key, "decode-9", max_tokens=6)
        peer.send("prefill-0", prefill=command)
        await until(lambda: key in peer.prefilled)
        kv = handle_from_proto(peer.prefilled[key].kv)
        draft, handle = growing(elsewhere, key, kv.size_bytes)
        offered = {
            "dropped": handle,
            "never was": replace(handle, path=handle.path + "7"),
            "of another size": replace(handle, size_bytes=kv.size_bytes - 8),
        }[fate]
        peer.send("decode-0", offer=OfferCommand(key, offered))
        if fate == "of another size":
            draft.ready(kv.size_bytes - 8)
            await until(lambda: decode.state().offers == 1)
        else:
            elsewhere.drop(draft.id)
            await until(lambda: decode.state().offers == 0)
        peer.send("decode-0", join=JoinCommand(replace(command, emitted=tuple(peer.text(key))), kv))
        await until(lambda: key in peer.ended or key in peer.failed)
        assert (key in peer.failed) == (fate == "of another size")
        for name in ("prefill-0", "decode-0"):
            peer.send(name, release=key)
            await until(lambda name=name: is_empty(mesh, name))  # type: ignore[misc]


async def test_a_request_that_ends_in_prefill_leaves_no_draft(mesh: Mesh, peer: Peer) -> None:
    """Its first token is its last: nobody comes for the cache, and whoever follows it is told."""
    key = Key(request_id(), ATTEMPT)
    async with (
        mesh.worker("prefill-0", "prefill", profile=PROFILE) as prefiller,
        mesh.worker("decode-0", "decode", profile=PROFILE),
    ):
        peer.send("prefill-0", prefill=prefill(key, "decode-0", max_tokens=1, prompt=LONG))
        await until(lambda: key in peer.ended)
        peer.send("prefill-0", release=key)
        await until(lambda: is_empty(mesh, "prefill-0") and is_empty(mesh, "decode-0"), wait_s=UNJOINED_S - 0.5)
        assert prefiller.state().handles == 0
        assert mesh.held_bytes("prefill-0") == 0


async def test_prompts_beyond_the_room_for_drafts_are_exported_at_their_end(mesh: Mesh, peer: Peer) -> None:
    """19 MB each, and a quarter of 160 MB for what is still being written."""
    told = await listen_in(peer, "decode-0")
    keys = [Key(request_id(), ATTEMPT) for _ in range(3)]
    async with (
        mesh.worker("prefill-0", "prefill", profile=PROFILE, limit_bytes=160 << 20),
        mesh.worker("decode-0", "decode", profile=PROFILE),
    ):
        for key in keys:
            peer.send("prefill-0", prefill=prefill(key, "decode-0", max_tokens=3, prompt=LONG))
        await until(lambda: all(key in peer.ended for key in keys))
        for key in keys:
            for name in ("prefill-0", "decode-0"):
                peer.send(name, release=key)
        await until(lambda: is_empty(mesh, "prefill-0") and is_empty(mesh, "decode-0"))
    offers = sum(len(batch.offer) for batch in told)
    assert 1 <= offers < 3
    assert len({tuple(peer.ended[key][0].tokens) for key in keys}) == 1


class Shelf:
    """Offers beside a prefill worker's tensors, without the workers around them."""

    def __init__(self, directory: Path, offers_max: int = 4, limit_bytes: int = 64 << 20) -> None:
        self.prefill = TensorStore(directory, "prefill-9", "cafe", "here")
        self.decode = TensorStore(directory, "decode-9", "beef", "here", limit_bytes=limit_bytes)
        self.offers = Offers(self.decode, asyncio.create_task, offers_max)

    def offer(self, request: str, attempt: int = 1, size_bytes: int = 1 << 20) -> Draft:
        key = Key(request, attempt)
        draft, handle = growing(self.prefill, key, size_bytes)
        self.offers.receive(key, handle)
        return draft

    async def close(self) -> None:
        await self.prefill.close()
        await self.decode.close()


async def test_offers_are_bounded_in_number_and_bytes(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    for request in "abcdefgh":
        shelf.offer(request)
    assert len(shelf.offers) == 4
    shelf.offers.withdraw(Key("a", 1))
    shelf.offer("big", size_bytes=14 << 20)  # 17 of 16 MB
    assert len(shelf.offers) == 3
    shelf.offer("fits", size_bytes=13 << 20)
    assert len(shelf.offers) == 4
    for request in ("b", "c", "d", "fits"):
        shelf.offers.withdraw(Key(request, 1))
    assert len(shelf.offers) == 0
    await shelf.close()


async def test_an_offer_that_is_never_joined_is_dropped_by_time(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    whole, _ = shelf.offer("whole"), shelf.offer("half")
    await asyncio.sleep(0.02)
    whole.ready(1 << 20)
    shelf.prefill.seal(whole, Tensor("uint8", (1,), "kv", 1))
    await asyncio.sleep(0.05)
    now_s = time.monotonic()
    shelf.offers.sweep(now_s + UNJOINED_S - 1)
    assert len(shelf.offers) == 2
    shelf.offers.sweep(now_s + UNJOINED_S + 1)
    assert len(shelf.offers) == 1, "what still grows ends by itself"
    shelf.offers.withdraw(Key("half", 1))
    await asyncio.sleep(0)  # the task lets go of its mapping
    shelf.prefill.drop(whole.id)
    shelf.prefill.drop("kv.half.1")
    first = shelf.prefill.create("kv.next.1", 1 << 20)
    assert os.path.exists(first.path), "pages are used again"  # noqa: ASYNC240
    await shelf.close()


async def test_a_withdrawn_offer_does_not_keep_its_join_waiting(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    draft = shelf.offer("r")
    handle = shelf.prefill.offer(draft, Tensor("uint8", (1 << 20,), "profile profile-tiny", 4, 4))
    joining = asyncio.create_task(shelf.offers.pull(Key("r", 1), handle))
    await asyncio.sleep(0.02)
    assert not joining.done(), "it waits for the rest"
    assert await shelf.offers.pull(Key("r", 2), handle) is None, "another attempt's"
    shelf.offers.withdraw(Key("r", 1))
    assert await joining is None
    await shelf.close()
