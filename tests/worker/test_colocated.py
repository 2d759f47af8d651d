"""Any stages in one process: nothing is written or exported between them, the very same array reaches the engine."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headrace.core.types import Key, MediaSpan, Prompt, StageName
from headrace.engines.base import Embeddings, KvManifest, KvSink, SequenceInput
from headrace.engines.families import family
from headrace.engines.profile import ProfileEngine
from headrace.profiles import engine_profile
from headrace.wire.convert import handle_from_proto
from headrace.worker.app import Stock
from tests.worker.kit import ATTEMPT, MODEL, Mesh, Peer, command, is_empty, outfit, picture, prefill, request_id, until

pytestmark = pytest.mark.timeout(60)


class Watched(ProfileEngine):
    """Remembers what it was given, and asked to give away."""

    def __init__(self) -> None:
        tiny = family(MODEL)
        super().__init__(tiny.spec, tiny.pieces, engine_profile("zero"), slots=4, blocks=256, chunk_tokens=512)
        self.seen: list[Embeddings] = []
        self.exports = 0

    def add(self, sequence: SequenceInput, sink: KvSink | None = None) -> None:
        self.seen += sequence.embeddings
        self.exports += sink is not None
        super().add(sequence, sink)

    def export_kv(self, key: Key, into: memoryview) -> None:
        self.exports += 1
        super().export_kv(key, into)

    def import_kv(self, sequence: SequenceInput, manifest: KvManifest, source: memoryview) -> None:
        self.exports += 1
        super().import_kv(sequence, manifest, source)


async def through(
    mesh: Mesh,
    peer: Peer,
    encoder: str,
    prefiller: str,
    decoder: str,
    encoded: Callable[[str], None] = lambda _id: None,
) -> list[int]:
    """A picture and a question through all stages; everybody is empty afterwards."""
    key = Key(request_id(), ATTEMPT)
    peer.send(encoder, encode=await command(mesh, key, 0, picture("red")))
    await until(lambda: (key, 0) in peer.encoded)
    handle = handle_from_proto(peer.encoded[key, 0].embedding)
    encoded(handle.id)
    spec = family(MODEL).spec
    prompt = Prompt((*(spec.placeholder_id,) * handle.length, 65, 66), (MediaSpan(0, 0, handle.length),))
    peer.send(prefiller, prefill=prefill(key, decoder, prompt=prompt, embeddings=(handle,), max_tokens=9))
    await until(lambda: key in peer.ended or key in peer.failed)
    for worker in {encoder, prefiller, decoder}:
        peer.send(worker, release=key)
    await until(lambda: all(is_empty(mesh, worker) for worker in {encoder, prefiller, decoder}))
    return list(peer.ended[key][0].tokens)


def written(mesh: Mesh, host: str = "here") -> list[str]:
    """Every file that was ever made, drafts and spares too."""
    names = [path.name for path in (mesh.directory / f"shm-{host}").iterdir()]
    return [name for name in names if not name.startswith(".lock.")]


ALL: tuple[StageName, ...] = ("encode", "prefill", "decode")


async def test_all_in_one_process(mesh: Mesh, peer: Peer) -> None:
    engine = Watched()
    made: list[Embeddings | None] = []
    kept: list[memoryview] = []  # what others would be served
    async with mesh.worker("all-0", *ALL, engine=engine) as worker:

        def encoded(name: str) -> None:
            made.append(worker.holds.embedding(name))
            kept.extend(filter(None, [mesh.tensors["all-0"].kept(name)]))

        await through(mesh, peer, "all-0", "all-0", "all-0", encoded)
        assert written(mesh) == []
    assert engine.exports == 0
    assert len(made) == len(engine.seen) == 1
    assert engine.seen[0] is made[0]
    assert kept
    assert np.shares_memory(np.frombuffer(kept[0], np.float32), engine.seen[0])


@pytest.mark.parametrize(
    ("stages", "files"),
    [
        ({"all-0": ALL}, 0),
        ({"enc-pre-0": ("encode", "prefill"), "decode-0": ("decode",)}, 1),
        ({"encoder-0": ("encode",), "pre-dec-0": ("prefill", "decode")}, 1),
        ({"enc-dec-0": ("encode", "decode"), "prefill-0": ("prefill",)}, 2),
        ({"encoder-0": ("encode",), "prefill-0": ("prefill",), "decode-0": ("decode",)}, 2),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else None,
)
async def test_every_subset_gives_the_same_and_writes_what_it_must(
    mesh: Mesh, peer: Peer, stages: dict[str, tuple[StageName, ...]], files: int
) -> None:
    """A file for each way between two processes: embeddings from encode to prefill, KV from prefill to decode."""
    async with AsyncExitStack() as running:
        for name, own in stages.items():
            await running.enter_async_context(mesh.worker(name, *own))
        at = {stage: name for name, own in stages.items() for stage in own}
        tokens = await through(mesh, peer, at["encode"], at["prefill"], at["decode"])
        assert len(written(mesh)) == files
    async with mesh.worker("all-1", *ALL):
        assert await through(mesh, peer, "all-1", "all-1", "all-1") == tokens


async def test_another_prefill_worker_after_all(mesh: Mesh, peer: Peer) -> None:
    """The process that encoded could prefill, but another one is chosen: it gets the embeddings from memory by gRPC."""
    async with mesh.worker("all-0", *ALL), mesh.worker("both-0", "prefill", "decode"):
        together = await through(mesh, peer, "all-0", "all-0", "all-0")
        assert await through(mesh, peer, "all-0", "both-0", "both-0") == together
        assert written(mesh) == []


STEADY = Path(__file__).parents[1] / "e2e" / "steady.toml"  # 8 ms an iteration


async def test_a_text_waits_for_one_batch_of_pictures(mesh: Mesh, peer: Peer) -> None:
    """What the next iteration holds is decided when the device is free: the second picture comes after it."""
    slow = replace(outfit(ALL, str(STEADY)), encode_token_s=0.05)  # 0.3 s a picture
    answer, text, *pictures = [Key(request_id(), ATTEMPT) for _ in range(4)]
    encodes = [
        await command(mesh, key, 0, picture(colour)) for key, colour in zip(pictures, ("red", "blue"), strict=True)
    ]
    async with mesh.worker("all-0", *ALL, stock=Stock(slow)):
        peer.send("all-0", prefill=prefill(answer, "all-0", max_tokens=1000))
        await until(lambda: peer.text(answer))
        for encode in encodes:
            peer.send("all-0", encode=encode)
        await asyncio.sleep(0.1)  # the first one is on the device
        peer.send("all-0", prefill=prefill(text, "all-0"))
        await until(lambda: peer.text(text))
        assert [(key, 0) in peer.encoded for key in pictures] == [True, False]
