"""KV caches of a real graph between workers, raw and packed, while they are computed and afterwards."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headrace.core.commands import JoinCommand
from headrace.core.types import Key, Prompt
from headrace.engines.onnx import OnnxEngine
from headrace.engines.onnx_model import Llama, graph_folder
from headrace.mesh.config import Settings
from headrace.mesh.errors import BadSetup
from headrace.wire.convert import handle_from_proto
from headrace.worker.kvwire import KvTravel
from headrace.worker.process import kv_travel
from tests.engines import tiny_llama
from tests.worker.kit import ATTEMPT, Mesh, Peer, is_empty, outfit, prefill, request_id, until

pytestmark = pytest.mark.timeout(60)

PROMPT = Prompt(tuple(int(token) for token in np.random.default_rng(5).integers(2, tiny_llama.VOCAB, 70)))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def segmented(cache: Path) -> OnnxEngine:
    """A layer at a time."""
    folder = graph_folder(tiny_llama.CHECKPOINT, cache)
    model = Llama(folder, tiny_llama.SHAPE, threads=1, segments=tiny_llama.SHAPE.layers)
    return OnnxEngine(tiny_llama.SPEC, tiny_llama.CHECKPOINT, model, slots=8, blocks=256, chunk_tokens=32)


async def answer(mesh: Mesh, peer: Peer, cache: Path, travel: KvTravel, decode_host: str = "here") -> list[int]:
    key = Key(request_id(), ATTEMPT)
    async with (
        mesh.worker("prefill-0", "prefill", engine=segmented(cache), travel=travel),
        mesh.worker("decode-0", "decode", engine=tiny_llama.engine(cache), host=decode_host),
    ):
        peer.send("prefill-0", prefill=prefill(key, "decode-0", max_tokens=24, prompt=PROMPT))
        await until(lambda: key in peer.ended or key in peer.failed)
        assert key not in peer.failed, peer.failed[key].failure.message
        kv = peer.prefilled[key].kv
        raw_bytes = len(PROMPT.tokens) * tiny_llama.SPEC.kv_bytes_per_token
        row_bytes = tiny_llama.SHAPE.head_width * 4
        packed_bytes = raw_bytes // row_bytes * (4 + tiny_llama.SHAPE.head_width)
        assert (kv.codec, kv.size_bytes) == (("int8", packed_bytes) if travel.packed else ("", raw_bytes))
        for worker in ("prefill-0", "decode-0"):
            peer.send(worker, release=key)
        await until(lambda: is_empty(mesh, "prefill-0") and is_empty(mesh, "decode-0"))
    return list(peer.ended[key][0].tokens)


async def test_pipelined_or_not_the_same_tokens(mesh: Mesh, peer: Peer, cache: Path) -> None:
    async with mesh.worker("both-0", "prefill", "decode", engine=tiny_llama.engine(cache)):
        key = Key(request_id(), ATTEMPT)
        peer.send("both-0", prefill=prefill(key, "both-0", max_tokens=24, prompt=PROMPT))
        await until(lambda: key in peer.ended)
    together = list(peer.ended[key][0].tokens)
    for travel in (KvTravel(None), KvTravel(0)):
        for host in ("here", "there"):
            assert await answer(mesh, peer, cache, travel, host) == together


async def test_packed_pipelined_or_not_the_same_tokens(mesh: Mesh, peer: Peer, cache: Path) -> None:
    """What int8 changes does not depend on when and how it travels. The first token never saw a packed cache."""
    raw = await answer(mesh, peer, cache, KvTravel(None))
    packed = await answer(mesh, peer, cache, KvTravel(None, packed=True))
    assert packed[0] == raw[0]
    assert await answer(mesh, peer, cache, KvTravel(0, packed=True)) == packed
    assert await answer(mesh, peer, cache, KvTravel(0, packed=True), "there") == packed


async def test_a_packed_cache_that_makes_no_sense_is_refused(mesh: Mesh, peer: Peer, cache: Path) -> None:
    key = Key(request_id(), ATTEMPT)
    async with (
        mesh.worker("prefill-0", "prefill", engine=tiny_llama.engine(cache), travel=KvTravel(None, packed=True)),
        mesh.worker("decode-0", "decode", engine=tiny_llama.engine(cache)),
    ):
        command = prefill(key, "decode-9", prompt=PROMPT)
        peer.send("prefill-0", prefill=command)
        await until(lambda: key in peer.prefilled)
        kv = handle_from_proto(peer.prefilled[key].kv)
        for wrong in (
            replace(kv, codec="int3"),
            replace(kv, codec=""),
            replace(kv, dtype="float64"),
            replace(kv, shape=(*kv.shape[:-1], 24)),
            replace(kv, length=0),
        ):
            key = replace(key, attempt=key.attempt + 1)
            peer.send("decode-0", join=JoinCommand(replace(command, key=key, emitted=(5,)), wrong))
            await until(lambda key=key: key in peer.failed)  # type: ignore[misc]
            assert peer.failed[key].retryable
        await until(lambda: is_empty(mesh, "decode-0"))


def test_what_cannot_be_packed_is_refused_at_start(cache: Path) -> None:
    packed = Settings(kv_wire="int8", kv_pipeline="on", engine="profile")
    with pytest.raises(BadSetup, match=r"HEADRACE_KV_WIRE=int8.*profile"):
        kv_travel(packed, outfit(("prefill",)).engine)
    assert kv_travel(packed, tiny_llama.engine(cache)) == KvTravel(0, packed=True)
    assert kv_travel(Settings(kv_pipeline="off"), None) == KvTravel(None)
