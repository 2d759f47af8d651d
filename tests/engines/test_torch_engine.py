"""What only the torch engine has: cross-attention KV, deepstack rows, 16-bit caches, padded decode batches."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from headrace.core.errors import StageError, Unavailable
from headrace.core.types import Sampling
from headrace.engines.base import KvMismatch, SequenceInput
from headrace.engines.families import family
from headrace.engines.registry import EngineConfigError, load_engine
from headrace.engines.sampling import Draw, sample
from headrace.engines.torch_decoder import TorchDecoder
from headrace.engines.torch_drawing import draw_on_device
from headrace.engines.torch_engine import TorchEngine
from headrace.engines.torch_kv import PagedKv
from headrace.engines.torch_load import checkpoint_decoder, decoder_of, load
from tests.engines import tiny_llama
from tests.engines.backends import BACKENDS, COUNT, Backend, sequences, undisturbed
from tests.engines.driving import advance, export, run
from tests.engines.hf_cases import Case, case

pytestmark = pytest.mark.timeout(120)  # the first test waits for transformers to be imported
STAGES = ["added", "half prefilled", "prefilled", "decoding"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as path:
        yield Path(path)


@cache
def made(kind: str, folder: Path) -> tuple[Case, TorchDecoder]:
    known = case(kind, folder, count=12)
    return known, TorchDecoder(known.decoder, device=CPU, dtype=torch.float32)


def engine(kind: str, folder: Path) -> TorchEngine:
    known, model = made(kind, folder)
    return TorchEngine(family(str(known.folder)).spec, model, slots=4, blocks=64, chunk_tokens=16)


def with_media(kind: str, folder: Path) -> tuple[SequenceInput, list[int]]:
    """The last request, whose pictures lie apart, and its answer."""
    known, _ = made(kind, folder)
    return known.requests[-1].given, known.answers[-1].tokens


def at_stage(subject: TorchEngine, given: SequenceInput, stage: str) -> list[int]:
    subject.add(given)
    if stage == "half prefilled":
        subject.step()
        return []
    return advance(subject, given.key, {"added": 0, "prefilled": 1, "decoding": 5}[stage])


@pytest.mark.parametrize("kind", ["qwen3_vl", "mllama"])
@pytest.mark.parametrize("stage", STAGES)
def test_media_are_handed_over_at_any_iteration(kind: str, stage: str, folder: Path) -> None:
    first, second = engine(kind, folder), engine(kind, folder)
    given, expected = with_media(kind, folder)
    tokens = at_stage(first, given, stage)
    manifest, buffer = export(first, given.key)
    rows = sum(span.embedding_rows for span in given.spans) if kind == "mllama" and stage != "added" else 0
    assert manifest.cross_length == rows
    moved = replace(given, tokens=(*given.tokens, *tokens))
    if manifest.cross_length or tokens:
        moved = replace(moved, embeddings=())  # the KV holds them
    elif kind == "qwen3_vl":
        with pytest.raises(KvMismatch, match="lacks media part"):
            second.import_kv(replace(moved, embeddings=()), manifest, memoryview(buffer))
    second.import_kv(moved, manifest, memoryview(bytes(buffer)))
    assert export(second, given.key) == (manifest, buffer)
    assert run(second, {given.key: 12}, {given.key: tokens})[given.key] == expected
    second.check_integrity()


@pytest.mark.parametrize("kind", ["qwen3_vl", "mllama"])
@pytest.mark.parametrize("stage", STAGES)
def test_media_are_evicted_and_restored(kind: str, stage: str, folder: Path) -> None:
    """Another sequence takes the blocks meanwhile, so that it comes back to others."""
    subject, (given, expected) = engine(kind, folder), with_media(kind, folder)
    tokens = at_stage(subject, given, stage)
    before = export(subject, given.key)
    subject.evict(given.key)
    assert subject.evicted_bytes() == before[0].size_bytes
    other = made(kind, folder)[0].requests[1].given
    subject.add(other)
    subject.step()
    subject.restore(given.key)
    assert export(subject, given.key) == before
    subject.remove(other.key)
    assert run(subject, {given.key: 12}, {given.key: tokens})[given.key] == expected
    subject.check_integrity()


class Sink:
    def __init__(self, size_bytes: int) -> None:
        self.bytes = bytearray(size_bytes)
        self.sizes: list[int] = []

    @property
    def buffer(self) -> memoryview:
        return memoryview(self.bytes)

    def ready(self, size_bytes: int) -> None:
        self.sizes.append(size_bytes)


@pytest.mark.parametrize("kind", ["qwen3_vl", "mllama"])
def test_a_sink_gets_layer_by_layer(kind: str, folder: Path) -> None:
    """Mllama: three layers of its own, then the KV of two that attend across."""
    subject, (given, _) = engine(kind, folder), with_media(kind, folder)
    told = subject.prefilled_manifest(given)
    sink = Sink(told.size_bytes)
    subject.add(given, sink)
    advance(subject, given.key, 1)
    assert export(subject, given.key) == (told, sink.bytes)
    layer_bytes = told.length * 2 * 2 * (16 if kind == "mllama" else 32) * 4
    layers = [layer_bytes, 2 * layer_bytes, 3 * layer_bytes]
    assert sink.sizes == (layers if kind == "qwen3_vl" else [*layers, told.size_bytes])
    assert sink.sizes[-1] == told.size_bytes


def narrow(dtype: torch.dtype) -> Backend:
    """The tiny Llama in 16 bits."""
    model = TorchDecoder(checkpoint_decoder(tiny_llama.CHECKPOINT), device=CPU, dtype=dtype)

    def make(*, slots: int = 8, blocks: int = 256, prefix_cache_bytes: int = 0) -> TorchEngine:
        return TorchEngine(
            tiny_llama.SPEC,
            model,
            slots=slots,
            blocks=blocks,
            chunk_tokens=32,
            prefix_cache_bytes=prefix_cache_bytes,
        )

    return Backend(str(dtype), tiny_llama.SPEC, make, tiny_llama.PIECES)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_16_bit_caches_move_bit_by_bit(dtype: torch.dtype) -> None:
    backend = narrow(dtype)
    subject, other = backend.make(), backend.make()
    asked = sequences(backend)["images"]
    subject.add(asked)
    tokens = advance(subject, asked.key, 4)
    manifest, buffer = export(subject, asked.key)
    assert manifest.dtype == str(dtype).removeprefix("torch.")
    assert manifest.size_bytes == manifest.length * subject.spec.kv_bytes_per_token
    assert subject.spec.kv_bytes_per_token * 2 == tiny_llama.SPEC.kv_bytes_per_token
    moved = replace(asked, tokens=(*asked.tokens, *tokens))
    other.import_kv(moved, manifest, memoryview(buffer))
    subject.evict(asked.key)
    subject.restore(asked.key)
    assert export(other, asked.key) == export(subject, asked.key) == (manifest, buffer)
    wanted = {asked.key: COUNT}
    assert run(other, wanted, {asked.key: list(tokens)}) == run(subject, wanted, {asked.key: list(tokens)})
    with pytest.raises(KvMismatch, match="this engine continues"):
        BACKENDS[-1].make().import_kv(moved, manifest, memoryview(buffer))


def test_decode_batches_padded_as_graphs_have_them() -> None:
    """Tokens and KV are those of batches without padding, whatever joins and leaves between two iterations."""
    backend = BACKENDS[-1]
    subject = backend.make(slots=12)
    assert isinstance(subject, TorchEngine)
    subject.use_graphs()
    for asked in sequences(backend).values():
        subject.add(asked)
    out = run(subject, {asked.key: COUNT for asked in sequences(backend).values()})
    assert {key.request_id: tokens for key, tokens in out.items()} == undisturbed(backend)
    subject.check_integrity()
    assert subject.graphs_captured > 1


def test_numbers_that_are_not_finite_are_refused(folder: Path) -> None:
    subject, (given, _) = engine("mllama", folder), with_media("mllama", folder)
    broken = replace(given, embeddings=(given.embeddings[0], given.embeddings[1] * np.float32(np.nan)))
    with pytest.raises(StageError, match="media part 1"):
        subject.add(broken)
    subject.add(given)
    advance(subject, given.key, 1)
    manifest, buffer = export(subject, given.key)
    np.frombuffer(buffer, np.float32)[-1] = np.nan
    subject.remove(given.key)
    with pytest.raises(KvMismatch, match="not finite"):
        subject.import_kv(replace(given, tokens=(*given.tokens, 5)), manifest, memoryview(buffer))
    assert (subject.slots_used(), subject.blocks_used()) == (0, 0)


def test_half_a_cache_is_refused(folder: Path) -> None:
    subject, (given, _) = engine("mllama", folder), with_media("mllama", folder)
    subject.add(given)
    token = advance(subject, given.key, 1)
    manifest, buffer = export(subject, given.key)
    subject.remove(given.key)
    with pytest.raises(KvMismatch, match="bytes of KV"):
        subject.import_kv(replace(given, tokens=(*given.tokens, *token)), manifest, memoryview(buffer)[:-4])
    assert (subject.slots_used(), subject.blocks_used()) == (0, 0)


def test_freed_half_precision_blocks_hold_no_overflow() -> None:
    """What is masked is multiplied by zero, and infinity times zero is not a number."""
    decoder = checkpoint_decoder(tiny_llama.CHECKPOINT)
    kv = PagedKv(decoder, blocks=4, block_tokens=16, device=CPU, dtype=torch.float16)
    blocks, kept = kv.take(2), kv.take(1)
    overflow = torch.full((decoder.layers, 2, 16, decoder.kv_heads, decoder.head_width), torch.inf)
    for owned in (blocks, kept):
        kv.fill(kv.places(owned, 0, 16), overflow)
    kv.give(blocks)
    for held in (kv.keys, kv.values):
        assert not held[:, blocks].any()
        assert held[:, kept].isinf().all()


def test_drawing_on_the_device_equals_drawing_on_the_host() -> None:
    logits = torch.randn(5, 97, generator=torch.Generator().manual_seed(1))
    warm = Sampling(max_tokens=9, temperature=0.8, top_p=0.9, seed=4)
    kinds = [Sampling(9), warm, Sampling(9, logprobs=3), Sampling(9, repetition_penalty=1.3), Sampling(9)]
    draws = [Draw(sampling, 2, [5, 6, 7]) for sampling in kinds]
    assert draw_on_device(logits, draws) == sample(logits.numpy(), draws)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused(folder: Path) -> None:
    path = str(made("qwen3_vl", folder)[0].folder)
    with pytest.raises(Unavailable, match="device is cuda"):
        load_engine("torch", path, threads=1, slots=1, blocks=8, device="cuda")


def test_wrong_words(folder: Path) -> None:
    path = str(made("qwen3_vl", folder)[0].folder)
    with pytest.raises(EngineConfigError, match="no weights of kind q4"):
        load_engine("torch", path, threads=1, slots=1, blocks=8, weights="q4")
    with pytest.raises(Unavailable, match="known: auto, float32"):
        load(family(path).spec, path, threads=1, slots=1, blocks=8, env={"HEADRACE_TORCH_DTYPE": "int8"})


def test_a_directory_is_loaded(folder: Path) -> None:
    path = str(made("qwen3_vl", folder)[0].folder)
    spec = family(path).spec
    subject = load(spec, path, threads=1, slots=2, blocks=16, env={"HEADRACE_TORCH_DTYPE": "bfloat16"})
    assert subject.spec.kv_bytes_per_token * 2 == spec.kv_bytes_per_token
    assert decoder_of(path).deepstack == 2
