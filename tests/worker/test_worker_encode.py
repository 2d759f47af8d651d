"""The encode stage: parts become embeddings that a prefill worker finds, and failures name their part."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from headrace.core.commands import WorkBatch
from headrace.core.types import Key, MediaSpan, Prompt, TensorHandle
from headrace.engines.families import family
from headrace.mesh import subjects
from headrace.mesh.store import Store
from headrace.v1 import queue_pb2
from headrace.wire.convert import handle_from_proto
from headrace.wire.work import work_batch_to_proto
from tests.worker.kit import ATTEMPT, MODEL, Mesh, Peer, command, picture, prefill, request_id, until

pytestmark = pytest.mark.timeout(60)


async def answer(mesh: Mesh, peer: Peer, encoder: str, prefiller: str, colour: str) -> list[int]:
    """One picture and a question, from encode to the end."""
    key = Key(request_id(), ATTEMPT)
    encode = await command(mesh, key, 0, picture(colour))
    peer.send(encoder, encode=encode)
    await until(lambda: (key, 0) in peer.encoded)
    handle = handle_from_proto(peer.encoded[key, 0].embedding)
    spec = family(MODEL).spec
    prompt = Prompt((*(spec.placeholder_id,) * handle.length, 65, 66), (MediaSpan(0, 0, handle.length),))
    peer.send(prefiller, prefill=prefill(key, prefiller, prompt=prompt, embeddings=(handle,)))
    await until(lambda: key in peer.ended)
    assert peer.ended[key][0].end.usage.image_tokens == handle.length
    for worker in {encoder, prefiller}:
        peer.send(worker, release=key)
    await until(lambda: not any(mesh.workers[worker].holds for worker in (encoder, prefiller)))
    assert mesh.workers[encoder].state().mapped_files == 0
    return peer.text(key)


async def test_together_by_file_and_by_grpc_the_same(mesh: Mesh, peer: Peer) -> None:
    async with mesh.worker("all-0", "encode", "prefill", "decode"):
        together = await answer(mesh, peer, "all-0", "all-0", "red")
        assert together != await answer(mesh, peer, "all-0", "all-0", "green"), "the picture matters"
    async with (
        mesh.worker("encoder-0", "encode", host="here"),
        mesh.worker("both-0", "prefill", "decode", host="here"),
        mesh.worker("both-1", "prefill", "decode", host="there"),
    ):
        assert await answer(mesh, peer, "encoder-0", "both-0", "red") == together
        assert await answer(mesh, peer, "encoder-0", "both-1", "red") == together


async def test_many_parts_at_once(mesh: Mesh, peer: Peer) -> None:
    keys = [Key(request_id(), ATTEMPT) for _ in range(10)]
    async with mesh.worker("encoder-0", "encode"):
        asked = [
            await command(mesh, key, part, picture(colour))
            for key in keys
            for part, colour in enumerate(("red", "blue"))
        ]
        for encode in asked:  # all at once: a fast machine encodes one before the next is made
            peer.send("encoder-0", encode=encode)
            peer.send("encoder-0", encode=encode)
        await until(lambda: len(peer.encoded) == 20)
        await until(lambda: len(peer.holds("encoder-0")) == 20)
        assert {hold.state for hold in peer.holds("encoder-0")} == {queue_pb2.HOLD_STATE_ENCODED}
        sums = {part: {peer.encoded[key, part].embedding.xxh3 for key in keys} for part in (0, 1)}
        assert [len(sums[0]), len(sums[1]), len(sums[0] | sums[1])] == [1, 1, 2]
        spans = [(span.stage, span.part) for span in peer.encoded[keys[0], 1].timeline]
        assert spans[-2:] == [("preprocess", 1), ("encode", 1)]
        check_waits([peer.encoded[key, part].timeline for key in keys for part in (0, 1)])
        for key in keys:
            peer.send("encoder-0", release=key)
        await until(lambda: mesh.workers["encoder-0"].state().mapped_files == 0)


def check_waits(timelines: list[Any]) -> None:
    """Who was taken later waited, and is not said to have been read meanwhile: an encoder does one thing at a time."""
    for timeline in timelines:
        assert [span.stage for span in timeline][-2:] == ["preprocess", "encode"]
        assert all(first.end_s == then.start_s for first, then in pairwise(timeline))
    assert any(timeline[0].stage == "wait" for timeline in timelines)
    batches = dict[float, float]()  # when each was taken, and when it was through
    for *waited, preprocess, encode in timelines:
        if waited:
            batches[preprocess.start_s] = max(encode.end_s, batches.get(preprocess.start_s, 0.0))
    assert all(end_s <= taken_s for (_, end_s), (taken_s, _) in pairwise(sorted(batches.items())))


async def test_a_corrupt_picture_is_the_inputs_fault_and_named(mesh: Mesh, peer: Peer) -> None:
    good, bad = Key(request_id(), ATTEMPT), Key(request_id(), ATTEMPT)
    async with mesh.worker("encoder-0", "encode"):
        peer.send("encoder-0", encode=await command(mesh, bad, 3, picture("red"), picture("red")[:40]))
        peer.send("encoder-0", encode=await command(mesh, good, 0, picture("red")))
        await until(lambda: bad in peer.failed and (good, 0) in peer.encoded)
        failed = peer.failed[bad]
        assert not failed.retryable
        assert (failed.failure.code, failed.failure.field) == ("invalid_input", "media[3]")
        assert "media part 3" in failed.failure.message
        peer.send("encoder-0", release=good)
        await until(lambda: not mesh.workers["encoder-0"].holds)


async def test_a_missing_blob_may_come_back(mesh: Mesh, peer: Peer) -> None:
    key = Key(request_id(), ATTEMPT)
    async with mesh.worker("encoder-0", "encode"):
        encode = await command(mesh, key, 0, picture("red"))
        await mesh.blobs.drop(key.request_id)
        peer.send("encoder-0", encode=encode)
        await until(lambda: key in peer.failed)
        assert peer.failed[key].retryable
        await mesh.blobs.put(key.request_id, picture("red"))
        peer.send("encoder-0", encode=encode)
        await until(lambda: (key, 0) in peer.encoded)
        peer.send("encoder-0", release=key)
        await until(lambda: not mesh.workers["encoder-0"].holds)


async def test_a_blob_that_rotted_is_no_retry(mesh: Mesh, peer: Peer, tmp_path: Path) -> None:
    key = Key(request_id(), ATTEMPT)
    async with mesh.worker("encoder-0", "encode"):
        encode = await command(mesh, key, 0, picture("red"))
        (stored,) = tmp_path.rglob(encode.media.sha256)  # noqa: ASYNC240
        stored.write_bytes(b"rotten")
        peer.send("encoder-0", encode=encode)
        await until(lambda: key in peer.failed)
        assert (peer.failed[key].retryable, peer.failed[key].failure.code) == (False, "stage_error")
        assert not mesh.workers["encoder-0"].holds


async def test_embeddings_that_are_gone_fail_the_attempt(mesh: Mesh, peer: Peer) -> None:
    key = Key(request_id(), ATTEMPT)
    async with mesh.worker("encoder-0", "encode"), mesh.worker("both-0", "prefill", "decode"):
        peer.send("encoder-0", encode=await command(mesh, key, 0, picture("red")))
        await until(lambda: (key, 0) in peer.encoded)
        handle = handle_from_proto(peer.encoded[key, 0].embedding)
        peer.send("encoder-0", release=key)
        await until(lambda: not mesh.workers["encoder-0"].holds)
        prompt = Prompt((0,) * handle.length + (65,), (MediaSpan(0, 0, handle.length),))
        peer.send("both-0", prefill=prefill(key, "both-0", prompt=prompt, embeddings=(handle,)))
        await until(lambda: key in peer.failed)
        assert peer.failed[key].retryable
        assert not mesh.workers["both-0"].holds


async def test_no_heartbeat_overtakes_the_event(mesh: Mesh, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event alone carries the spans: who had learnt of the part from a heartbeat would not take them any more."""
    at_store, go = asyncio.Event(), asyncio.Event()
    put_handles = Store.put_handles

    async def slowly(store: Store, handles: Sequence[TensorHandle]) -> None:
        at_store.set()
        await go.wait()
        await put_handles(store, handles)

    monkeypatch.setattr(Store, "put_handles", slowly)
    key = Key(request_id(), ATTEMPT)
    async with mesh.worker("encoder-0", "encode"):
        peer.send("encoder-0", encode=await command(mesh, key, 0, picture("red")))
        await asyncio.wait_for(at_store.wait(), 10.0)
        peer.beats.clear()
        await until(lambda: peer.holds("encoder-0"))
        assert [hold.state for hold in peer.holds("encoder-0")] == [queue_pb2.HOLD_STATE_ENCODING]
        go.set()
        await until(lambda: (key, 0) in peer.encoded)
        await until(lambda: peer.holds("encoder-0")[0].state == queue_pb2.HOLD_STATE_ENCODED)
        peer.send("encoder-0", release=key)
        await until(lambda: not mesh.workers["encoder-0"].holds)


async def test_what_is_due_first_is_encoded_first(mesh: Mesh, peer: Peer) -> None:
    """All are there before the tower begins; the last to come is the only one in a hurry."""
    now_s = time.time()
    keys = [Key(request_id(), ATTEMPT) for _ in range(12)]
    commands = [await command(mesh, key, 0, picture("red")) for key in keys]
    due = [replace(each, due_s=now_s + 3_600.0) for each in commands[:-1]] + [replace(commands[-1], due_s=now_s + 1.0)]
    async with mesh.worker("encoder-0", "encode"):
        batch = WorkBatch(peer.epoch, encode=tuple(due))
        peer.bus.send(subjects.work("encoder-0"), work_batch_to_proto(batch).SerializeToString())
        await until(lambda: len(peer.encoded) == len(keys))
        assert [key for key, _ in peer.encoded].index(keys[-1]) < 3, "in the first batch, a quarter of those that wait"
        for key in keys:
            peer.send("encoder-0", release=key)
        await until(lambda: not mesh.workers["encoder-0"].holds)
