"""The backends that the conformance tests run on, and sequences of every kind for each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np

from headrace.core.types import Key, MediaSpan, Sampling
from headrace.engines.base import Embeddings, Engine, ModelSpec, SequenceInput
from headrace.engines.constrain import Grammars
from headrace.engines.families import family
from headrace.engines.onnx import OnnxEngine
from headrace.engines.onnx_model import Llama, graph_folder
from headrace.engines.profile import ProfileEngine
from headrace.engines.runtime import Memory
from headrace.profiles import engine_profile
from tests.engines import tiny_llama
from tests.engines.driving import run

CHUNK_TOKENS = 32  # two blocks
COUNT = 20  # output tokens of every sequence


class Checked(Engine, Protocol):
    def check_integrity(self) -> None: ...


class Make(Protocol):
    """Chunks are of CHUNK_TOKENS."""

    def __call__(self, *, slots: int = 8, blocks: int = 256, prefix_cache_bytes: int = 0) -> Checked: ...


@dataclass(frozen=True, eq=False)
class Backend:
    """An engine on a small seeded model, whose placeholder is token 1 or none of those that `tokens` draws."""

    name: str
    spec: ModelSpec
    make: Make
    pieces: Sequence[bytes]

    def __str__(self) -> str:
        return self.name

    @property
    def prefix(self) -> str:
        """The model's named prefix, if it has one."""
        return next(iter(self.spec.prefix_tokens), "")

    def tokens(self, seed: int, count: int) -> list[int]:
        drawn = np.random.default_rng(seed).integers(2, min(self.spec.vocab_size, 97), count)
        return [int(token) for token in drawn]

    def image(self, seed: int, rows: int) -> Embeddings:
        return np.random.default_rng(100 + seed).normal(size=(rows, self.spec.embed_width)).astype(np.float32)

    def text(
        self, name: str, tokens: Sequence[int], *, prefix: str = "", sampling: Sampling | None = None
    ) -> SequenceInput:
        given = sampling or Sampling(max_tokens=COUNT + 1, ignore_eos=True)
        return SequenceInput(Key(name, 1), tuple(tokens), len(tokens), (), (), prefix, given)

    def about(self, name: str, images: tuple[int, int], tokens: Sequence[int]) -> SequenceInput:
        """A question about two images, of 4 and 6 rows, the second across the border of two chunks."""
        spans = (MediaSpan(0, 3, 4), MediaSpan(1, 29, 6))
        rows = (self.image(images[0], 4), self.image(images[1], 6))
        return replace(self.text(name, tokens, prefix=self.prefix), spans=spans, embeddings=rows)


@cache
def sequences(backend: Backend) -> dict[str, SequenceInput]:
    """By name: short and long, alike at the start, with media, on a prefix, drawn."""
    long, question = backend.tokens(1, 70), backend.tokens(2, 40)
    warm = Sampling(max_tokens=COUNT + 1, temperature=0.9, top_p=0.9, seed=11, repetition_penalty=1.2, ignore_eos=True)
    made = [
        backend.text("one token", backend.tokens(3, 1)),
        backend.text("one chunk", backend.tokens(4, CHUNK_TOKENS)),
        backend.text("long", long),
        backend.text("long, another end", [*long[:50], *backend.tokens(5, 10)]),
        backend.text("on a prefix", backend.tokens(6, 20), prefix=backend.prefix),
        backend.text("drawn", backend.tokens(7, 45), sampling=warm),
        backend.about("images", (0, 1), question),
        backend.about("other images", (2, 1), question),
        backend.about("second image changed", (0, 2), question),
    ]
    return {given.key.request_id: given for given in made}


@cache
def undisturbed(backend: Backend) -> dict[str, list[int]]:
    """COUNT tokens of each sequence, alone in an engine without a prefix cache."""
    out = {}
    for name, given in sequences(backend).items():
        engine = backend.make()
        engine.add(given)
        out[name] = run(engine, {given.key: COUNT})[given.key]
    return out


def _profile() -> Backend:
    tiny = family("profile-tiny")
    spec, costs = replace(tiny.spec, prefix_tokens={"image": 5}), replace(engine_profile("zero"), kv_bytes_per_token=24)

    def make(*, slots: int = 8, blocks: int = 256, prefix_cache_bytes: int = 0) -> ProfileEngine:
        return ProfileEngine(
            spec,
            tiny.pieces,
            costs,
            slots=slots,
            blocks=blocks,
            chunk_tokens=CHUNK_TOKENS,
            prefix_cache_bytes=prefix_cache_bytes,
            grammars=Grammars(tiny),
        )

    return Backend("profile", replace(spec, kv_bytes_per_token=24), make, tiny.pieces)


@cache
def _tiny_llama(segments: int, shared: bool) -> Llama:
    graph = graph_folder(tiny_llama.CHECKPOINT, Path(_cache_folder().name))
    return Llama(graph, tiny_llama.SHAPE, threads=1, segments=segments, memory=Memory("cpu", shared=shared))


@cache
def _cache_folder() -> TemporaryDirectory[str]:
    """Until the process ends: a parked model reads its graph again."""
    return TemporaryDirectory()


def _onnx(name: str, *, segments: int = 1, shared: bool = True) -> Backend:
    """shared=False: the KV of decoding sequences lies in copies, as on a GPU."""

    def make(*, slots: int = 8, blocks: int = 256, prefix_cache_bytes: int = 0) -> OnnxEngine:
        return OnnxEngine(
            tiny_llama.SPEC,
            tiny_llama.CHECKPOINT,
            _tiny_llama(segments, shared),
            slots=slots,
            blocks=blocks,
            chunk_tokens=CHUNK_TOKENS,
            prefix_cache_bytes=prefix_cache_bytes,
            grammars=Grammars(tiny_llama.Words()),
        )

    return Backend(name, tiny_llama.SPEC, make, tiny_llama.PIECES)


@cache
def _tiny_torch() -> Any:
    import torch

    from headrace.engines.torch_decoder import TorchDecoder
    from headrace.engines.torch_load import checkpoint_decoder

    torch.set_num_threads(1)
    decoder = checkpoint_decoder(tiny_llama.CHECKPOINT)
    return TorchDecoder(decoder, device=torch.device("cpu"), dtype=torch.float32)


def _torch(name: str, *, graphs: bool) -> Backend:
    """graphs: decode iterations padded as CUDA graphs have them."""

    def make(*, slots: int = 8, blocks: int = 256, prefix_cache_bytes: int = 0) -> Checked:
        from headrace.engines.torch_engine import TorchEngine

        engine = TorchEngine(
            tiny_llama.SPEC,
            _tiny_torch(),
            slots=slots,
            blocks=blocks,
            chunk_tokens=CHUNK_TOKENS,
            prefix_cache_bytes=prefix_cache_bytes,
            grammars=Grammars(tiny_llama.Words()),
        )
        if graphs:
            engine.use_graphs()
        return engine

    return Backend(name, tiny_llama.SPEC, make, tiny_llama.PIECES)


BACKENDS = [_profile(), _onnx("onnx"), _onnx("onnx in segments", segments=2, shared=False)]
if find_spec("torch"):
    BACKENDS.append(_torch("torch", graphs=False))
