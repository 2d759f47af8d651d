"""From a model's name or directory to a running torch engine: device, number format, sizes.

HEADRACE_TORCH_DTYPE (auto, float32, bfloat16, float16) chooses the number format; auto is bfloat16 on a GPU and float32
on a CPU.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from headrace.core.errors import Unavailable
from headrace.core.stages.kv import blocks_for
from headrace.engines.base import ModelSpec
from headrace.engines.constrain import Grammars
from headrace.engines.families import checkpoint, is_directory
from headrace.engines.families.decoder import Decoder, Rope
from headrace.engines.families.llama import Checkpoint
from headrace.engines.torch_decoder import TorchDecoder
from headrace.engines.torch_engine import TorchEngine

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# A chunk on a CPU takes a second at some hundred tokens, on a GPU some milliseconds; running sequences wait for it. The
# mask of a chunk in the middle of a prompt holds chunk x grouped query heads x context numbers: half a GB at 1024.
_CHUNK_TOKENS = {"cpu": 256, "cuda": 1024}


def load(
    spec: ModelSpec,
    model: str,
    *,
    threads: int,
    slots: int,
    blocks: int,
    chunk_tokens: int = 0,
    prefix_cache_bytes: int = 0,
    device: str = "cpu",
    grammars: Grammars | None = None,
    env: Mapping[str, str] = os.environ,
) -> TorchEngine:
    """An engine ready to run. threads: of torch, in the whole process; device: cpu, cuda, or auto for a GPU if there
    is one.

    Raises:
        ModelNotFound: unknown model.
        Unavailable: the device is not there, or the checkpoint is not what its configuration says.
    """
    torch.set_num_threads(threads)
    there = device_of(device)
    dtype = dtype_of(env.get("HEADRACE_TORCH_DTYPE", "auto"), there)
    decoder = TorchDecoder(decoder_of(model), device=there, dtype=dtype)
    size = blocks_for(chunk_tokens or _CHUNK_TOKENS[there.type], spec.block_tokens) * spec.block_tokens
    engine = TorchEngine(
        spec,
        decoder,
        slots=slots,
        blocks=blocks,
        chunk_tokens=size,
        prefix_cache_bytes=prefix_cache_bytes,
        grammars=grammars,
    )
    if there.type == "cuda":
        engine.use_graphs()
    return engine


def decoder_of(model: str) -> Decoder:
    """The decoder of a Hugging Face directory, or of a model that brings a Checkpoint."""
    if is_directory(model):
        from headrace.engines.families.directory import open_decoder

        return open_decoder(Path(model))
    return checkpoint_decoder(checkpoint(model))


def checkpoint_decoder(source: Checkpoint) -> Decoder:
    shape = source.shape
    return Decoder(
        directory=Path(source.name),
        fingerprint=source.fingerprint,
        layers=shape.layers,
        width=shape.width,
        query_heads=shape.query_heads,
        kv_heads=shape.kv_heads,
        head_width=shape.head_width,
        vocab=None,
        norm_epsilon=shape.norm_epsilon,
        rope=Rope(shape.rope_base, shape.head_width),
        rename=lambda name: name.removeprefix("model."),
        tied=True,
        load_weights=source.load_weights,
        load_prefix=source.load_prefix,
    )


def device_of(word: str) -> torch.device:
    """
    Raises:
        Unavailable: a GPU is asked for and torch has none here.
    """
    has_gpu = torch.cuda.is_available()
    if word == "cuda" and not has_gpu:
        raise Unavailable(f"the device is cuda, which torch {torch.__version__} does not have here")
    return torch.device("cuda" if has_gpu and word != "cpu" else "cpu")


def dtype_of(word: str, device: torch.device) -> torch.dtype:
    """
    Raises:
        Unavailable: an unknown number format.
    """
    if word == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if word not in _DTYPES:
        raise Unavailable(f"HEADRACE_TORCH_DTYPE is {word!r}; known: auto, {', '.join(_DTYPES)}")
    return _DTYPES[word]
