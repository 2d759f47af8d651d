"""An encoder that has had the same bytes before: nothing is computed again, and nobody is given another's embedding."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from headrace.core.commands import EncodeCommand, WorkBatch
from headrace.core.types import Key
from headrace.mesh import subjects
from headrace.v1 import queue_pb2
from headrace.wire.work import work_batch_to_proto
from headrace.worker.app import Worker
from tests.worker.kit import ATTEMPT, Mesh, Peer, command, is_empty, picture, request_id, until

pytestmark = pytest.mark.timeout(60)

CACHE_BYTES = 1 << 20
ENCODER = "encoder-0"


def new_key() -> Key:
    return Key(request_id(), ATTEMPT)


async def asked(mesh: Mesh, key: Key, colour: str = "red", part: int = 0, scope: str = "tenant a") -> EncodeCommand:
    return replace(await command(mesh, key, part, picture(colour)), cache_scope=scope)


async def encoded(peer: Peer, told: EncodeCommand, worker: str = ENCODER) -> queue_pb2.PartEncoded:
    peer.send(worker, encode=told)
    await until(lambda: (told.key, told.part) in peer.encoded)
    return peer.encoded[told.key, told.part]


def was_cached(event: queue_pb2.PartEncoded) -> bool:
    stages = [(span.stage, span.cached) for span in event.timeline]
    computed = [("preprocess", False), ("encode", False)]
    assert stages in (computed, [("wait", False), *computed], [("encode", True)])
    return len(stages) == 1


def counts(worker: Worker) -> tuple[int, int, int]:
    tally = worker._tally
    return tally.encoded_parts, tally.encoder_cache_hits, tally.encoder_cache_misses


async def test_the_same_bytes_are_encoded_once_and_releases_take_nothing_away(mesh: Mesh, peer: Peer) -> None:
    async with mesh.worker(ENCODER, "encode", encoder_cache_bytes=CACHE_BYTES) as worker:
        events = []
        for _ in range(4):
            event = await encoded(peer, await asked(mesh, key := new_key()))
            events.append(event)
            peer.send(ENCODER, release=key)  # before the next one asks: no lease is left
            await until(lambda: is_empty(mesh, ENCODER))
        assert [was_cached(event) for event in events] == [False, True, True, True]
        assert len({(event.embedding.xxh3, event.embedding.length) for event in events}) == 1
        assert len({event.embedding.id for event in events}) == 4, "a tensor of its own for each"
        assert counts(worker) == (1, 3, 1)
        assert worker._tally.encoder_cache_bytes == events[0].embedding.size_bytes > 0
        assert all(span.end_s >= span.start_s for event in events for span in event.timeline)


async def test_a_release_of_one_leaves_the_others_theirs(mesh: Mesh, peer: Peer) -> None:
    async with mesh.worker(ENCODER, "encode", encoder_cache_bytes=CACHE_BYTES):
        keys = [new_key() for _ in range(3)]
        events = [await encoded(peer, await asked(mesh, key)) for key in keys]
        peer.send(ENCODER, release=keys[0])
        await until(lambda: len(mesh.workers[ENCODER].holds.parts) == 2)
        assert mesh.workers[ENCODER].state().handles == 2
        for event in events[1:]:
            kept = mesh.tensors[ENCODER].handles()[event.embedding.id]
            fetched = await mesh.tensors[ENCODER].fetch(kept)
            assert len(bytes(fetched.buffer)) == kept.size_bytes
            fetched.close()
        for key in keys[1:]:
            peer.send(ENCODER, release=key)
        await until(lambda: is_empty(mesh, ENCODER))


async def test_many_that_wait_at_once_are_computed_once(mesh: Mesh, peer: Peer) -> None:
    keys = [new_key() for _ in range(20)]
    async with mesh.worker(ENCODER, "encode", encoder_cache_bytes=CACHE_BYTES) as worker:
        told = [
            await asked(mesh, key, colour, part) for key in keys for part, colour in enumerate(("red", "blue", "red"))
        ]
        batch = work_batch_to_proto(WorkBatch(1, encode=tuple(told)))
        peer.bus.send(subjects.work(ENCODER), batch.SerializeToString())
        await until(lambda: len(peer.encoded) == 60)
        assert counts(worker) == (2, 58, 2)
        sums = {part: {peer.encoded[key, part].embedding.xxh3 for key in keys} for part in (0, 1, 2)}
        assert sums[0] == sums[2] != sums[1]
        assert sum(not was_cached(event) for event in peer.encoded.values()) == 2
        for key in keys:
            peer.send(ENCODER, release=key)
        await until(lambda: is_empty(mesh, ENCODER))


@pytest.mark.parametrize(
    ("scopes", "cache_bytes", "computed"),
    [
        (("tenant a", "tenant b"), CACHE_BYTES, 2),
        (("all", "all"), CACHE_BYTES, 1),
        (("", ""), CACHE_BYTES, 2),
        (("tenant a", "tenant a"), 0, 2),
    ],
    ids=["two tenants", "shared by all", "of nobody", "no cache"],
)
async def test_whose_is_shared(
    mesh: Mesh, peer: Peer, scopes: tuple[str, str], cache_bytes: int, computed: int
) -> None:
    async with mesh.worker(ENCODER, "encode", encoder_cache_bytes=cache_bytes) as worker:
        told = [await asked(mesh, new_key(), scope=scope) for scope in scopes]
        events = [await encoded(peer, each) for each in told]
        assert events[0].embedding.xxh3 == events[1].embedding.xxh3
        assert counts(worker)[0] == computed
        for each in told:
            peer.send(ENCODER, release=each.key)
        await until(lambda: is_empty(mesh, ENCODER))


async def test_other_bytes_or_another_count_are_never_answered_from_it(mesh: Mesh, peer: Peer) -> None:
    async with mesh.worker(ENCODER, "encode", encoder_cache_bytes=CACHE_BYTES) as worker:
        red = await encoded(peer, await asked(mesh, new_key()))
        blue = await encoded(peer, await asked(mesh, new_key(), "blue"))
        assert red.embedding.xxh3 != blue.embedding.xxh3
        odd = await asked(mesh, new_key())
        odd = replace(odd, media=replace(odd.media, tokens=odd.media.tokens + 1))
        peer.send(ENCODER, encode=odd)
        await until(lambda: odd.key in peer.failed)
        assert "rows instead of" in peer.failed[odd.key].failure.message
        assert was_cached(await encoded(peer, await asked(mesh, new_key())))
        assert counts(worker)[1:] == (1, 2), "what came out wrong is not kept"


async def test_what_does_not_fit_is_computed_again(mesh: Mesh, peer: Peer) -> None:
    async with mesh.worker(ENCODER, "encode") as worker:
        size_bytes = (await encoded(peer, await asked(mesh, new_key()))).embedding.size_bytes
        assert counts(worker) == (1, 0, 0)
    async with mesh.worker("encoder-1", "encode", encoder_cache_bytes=2 * size_bytes) as worker:
        colours = ("red", "blue", "red", "green", "red", "blue")
        events = [await encoded(peer, await asked(mesh, new_key(), colour), "encoder-1") for colour in colours]
        assert [was_cached(event) for event in events] == [False, False, True, False, True, False]
        assert worker._tally.encoder_cache_bytes == 2 * size_bytes


async def test_in_one_process_with_prefill_they_share_one_array(mesh: Mesh, peer: Peer) -> None:
    async with mesh.worker("all-0", "encode", "prefill", "decode", encoder_cache_bytes=CACHE_BYTES) as worker:
        events = [await encoded(peer, await asked(mesh, new_key()), "all-0") for _ in range(3)]
        rows = [worker.holds.embedding(event.embedding.id) for event in events]
        assert rows[0] is not None
        assert all(np.shares_memory(rows[0], each) for each in rows[1:])
        assert len({event.embedding.xxh3 for event in events}) == 1
        assert events[0].embedding.xxh3 != 0


async def test_who_has_no_bytes_fails_alone(mesh: Mesh, peer: Peer) -> None:
    """Three ask for the same; the blob of the first was lost."""
    keys = [new_key() for _ in range(3)]
    async with mesh.worker(ENCODER, "encode", encoder_cache_bytes=CACHE_BYTES) as worker:
        told = [await asked(mesh, key) for key in keys]
        await mesh.blobs.drop(keys[0].request_id)
        batch = work_batch_to_proto(WorkBatch(1, encode=tuple(told)))
        peer.bus.send(subjects.work(ENCODER), batch.SerializeToString())
        await until(lambda: keys[0] in peer.failed and len(peer.encoded) == 2)
        assert peer.failed[keys[0]].retryable
        assert [was_cached(peer.encoded[key, 0]) for key in keys[1:]] == [False, True]
        assert counts(worker) == (1, 1, 1)


async def test_released_while_it_waits_for_its_copy(mesh: Mesh, peer: Peer) -> None:
    async with mesh.worker(ENCODER, "encode", encoder_cache_bytes=CACHE_BYTES):
        await encoded(peer, await asked(mesh, first := new_key()))
        for _ in range(20):
            told = await asked(mesh, new_key())
            peer.send(ENCODER, encode=told)
            peer.send(ENCODER, release=told.key)
        peer.send(ENCODER, release=first)
        await peer.bus.flush()
        await asyncio.sleep(0.2)
        await until(lambda: is_empty(mesh, ENCODER))
