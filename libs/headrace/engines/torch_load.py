"""From a model's name or directory to a running torch engine: device, number format, sizes.

HEADRACE_TORCH_DEVICE (auto, cpu, cuda, cuda:1 ...) and HEADRACE_TORCH_DTYPE (auto, float32, bfloat16, float16) choose;
auto is a GPU if there is one, bfloat16 on it, and float32 on a CPU.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from headrace.core.errors import Unavailable
from headrace.engines.base import ModelSpec, blocks_for
from headrace.engines.families import checkpoint, is_directory
from headrace.engines.families.decoder import Decoder, Rope
from headrace.engines.families.llama import Checkpoint
from headrace.engines.torch_decoder import TorchDecoder
from headrace.engines.torch_engine import TorchEngine

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# A chunk on a CPU takes a second at some hundred tokens, on a GPU some milliseconds; running sequences wait for it.
_CHUNK_TOKENS = {"cpu": 256, "cuda": 2048}


def load(
    spec: ModelSpec,
    model: str,
    *,
    threads: int,
    slots: int,
    blocks: int,
    chunk_tokens: int = 0,
    prefix_cache_bytes: int = 0,
    env: Mapping[str, str] = os.environ,
) -> TorchEngine:
    """An engine ready to run. threads: of torch, in the whole process.

    Raises:
        ModelNotFound: unknown model.
        Unavailable: the device is not there, or the checkpoint is not what its configuration says.
    """
    torch.set_num_threads(threads)
    device = device_of(env.get("HEADRACE_TORCH_DEVICE", "auto"))
    dtype = dtype_of(env.get("HEADRACE_TORCH_DTYPE", "auto"), device)
    decoder = TorchDecoder(decoder_of(model), device=device, dtype=dtype)
    size = blocks_for(chunk_tokens or _CHUNK_TOKENS[device.type], spec.block_tokens) * spec.block_tokens
    engine = TorchEngine(
        spec, decoder, slots=slots, blocks=blocks, chunk_tokens=size, prefix_cache_bytes=prefix_cache_bytes
    )
    if device.type == "cuda":
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
        Unavailable: no such device here.
    """
    if word == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(word)
    except RuntimeError as error:
        raise Unavailable(f"HEADRACE_TORCH_DEVICE is {word!r}: {error}") from error
    if device.type not in _CHUNK_TOKENS or (device.type == "cuda" and not torch.cuda.is_available()):
        raise Unavailable(f"HEADRACE_TORCH_DEVICE is {word!r}, which torch {torch.__version__} does not have here")
    return device


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
