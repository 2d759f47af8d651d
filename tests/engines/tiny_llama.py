"""A Llama of three small layers with seeded weights, and its forward pass in plain numpy: the graph's reference."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headrace.core.types import Key, MediaSpan, Sampling
from headrace.engines.base import Embeddings, ModelSpec, SequenceInput
from headrace.engines.families.llama import Checkpoint, LlamaShape, Weights
from headrace.engines.onnx import OnnxEngine
from headrace.engines.onnx_model import Llama, graph_folder

SHAPE = LlamaShape(
    layers=3,
    width=96,
    query_heads=6,
    kv_heads=2,
    head_width=16,
    context_tokens=2048,
    rope_base=10_000.0,
    norm_epsilon=1e-5,
)
VOCAB, INNER, PREFIX_TOKENS = 97, 96, 5
SPEC = ModelSpec(
    name="tiny",
    family="tiny",
    context_tokens=SHAPE.context_tokens,
    vocab_size=VOCAB,
    eos_ids=frozenset({0}),
    placeholder_id=1,
    embed_width=SHAPE.width,
    kv_bytes_per_token=SHAPE.kv_bytes_per_token,
    block_tokens=16,
    modalities=("image",),
    max_media=4,
    prefix_tokens={"image": PREFIX_TOKENS},
)
PIECES = [b"", b"", *[bytes([byte]) for byte in range(32, 32 + VOCAB - 2)]]  # the printable characters of ASCII
Array = NDArray[np.float32]


class Words:
    """Its vocabulary, as constrained decoding reads it."""

    spec = SPEC
    pieces = PIECES

    def encode(self, text: str) -> list[int]:
        return [PIECES.index(character.encode()) for character in text]


def weights(seed: int = 0) -> Weights:
    random = np.random.default_rng(seed)
    kv_width = SHAPE.kv_heads * SHAPE.head_width
    axes = {
        "self_attn.q_proj": (SHAPE.width, SHAPE.width),
        "self_attn.k_proj": (kv_width, SHAPE.width),
        "self_attn.v_proj": (kv_width, SHAPE.width),
        "self_attn.o_proj": (SHAPE.width, SHAPE.width),
        "mlp.gate_proj": (INNER, SHAPE.width),
        "mlp.up_proj": (INNER, SHAPE.width),
        "mlp.down_proj": (SHAPE.width, INNER),
    }
    made = {"model.embed_tokens.weight": random.normal(size=(VOCAB, SHAPE.width))}
    for layer in range(SHAPE.layers):
        for name, (rows, columns) in axes.items():
            made[f"model.layers.{layer}.{name}.weight"] = random.normal(size=(rows, columns)) * (2 / columns**0.5)
        for name in ("input_layernorm", "post_attention_layernorm"):
            made[f"model.layers.{layer}.{name}.weight"] = 1 + 0.1 * random.normal(size=SHAPE.width)
    made["model.norm.weight"] = 1 + 0.1 * random.normal(size=SHAPE.width)
    return {name: values.astype(np.float32) for name, values in made.items()}


def prefix(_name: str) -> Array:
    axes = (SHAPE.layers, 2, SHAPE.kv_heads, PREFIX_TOKENS, SHAPE.head_width)
    return np.random.default_rng(7).normal(size=axes).astype(np.float32)


CHECKPOINT = Checkpoint("tiny", SHAPE, "tiny seed 0", weights, prefix)


def engine(cache: Path, *, slots: int = 8, blocks: int = 256, chunk_tokens: int = 32) -> OnnxEngine:
    model = Llama(graph_folder(CHECKPOINT, cache), SHAPE, threads=1)
    return OnnxEngine(SPEC, CHECKPOINT, model, slots=slots, blocks=blocks, chunk_tokens=chunk_tokens)


def sequence(
    name: str,
    prompt: list[int],
    *,
    emitted: list[int] | None = None,
    spans: tuple[MediaSpan, ...] = (),
    embeddings: tuple[Embeddings, ...] = (),
    prefix_name: str = "",
    sampling: Sampling | None = None,
) -> SequenceInput:
    tokens = (*prompt, *(emitted or []))
    return SequenceInput(
        Key(name, 1), tokens, len(prompt), spans, embeddings, prefix_name, sampling or Sampling(max_tokens=64)
    )


def reference_logits(
    w: Weights, x: Array, past: Array | None = None, turn: Callable[[Array, int], Array] | None = None
) -> Array:
    """Logits [T, vocab] of rows x [T, width] behind a past [layers, 2, kv_heads, P, head_width]; in float64."""
    turn = turn or rotate
    start = 0 if past is None else past.shape[3]
    for layer in range(SHAPE.layers):
        name = f"model.layers.{layer}."
        h = _norm(x, w[name + "input_layernorm.weight"])
        q, k, v = (_heads(h @ w[f"{name}self_attn.{part}_proj.weight"].T) for part in "qkv")
        q, k = turn(q, start), turn(k, start)
        if past is not None:
            k, v = np.concatenate([past[layer, 0], k], axis=1), np.concatenate([past[layer, 1], v], axis=1)
        x = x + _attend(q, k, v) @ w[name + "self_attn.o_proj.weight"].T
        h = _norm(x, w[name + "post_attention_layernorm.weight"])
        gate = h @ w[name + "mlp.gate_proj.weight"].T
        inner = gate / (1 + np.exp(-gate)) * (h @ w[name + "mlp.up_proj.weight"].T)
        x = x + inner @ w[name + "mlp.down_proj.weight"].T
    logits: Array = _norm(x, w["model.norm.weight"]) @ w["model.embed_tokens.weight"].T
    return logits


def reference_greedy(w: Weights, x: Array, count: int, past: Array | None = None) -> list[int]:
    tokens: list[int] = []
    for _ in range(count):
        tokens.append(int(reference_logits(w, x, past)[-1].argmax()))
        x = np.concatenate([x, w["model.embed_tokens.weight"][tokens[-1:]]])
    return tokens


def _norm(x: Array, weight: Array) -> Array:
    normed: Array = x / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + SHAPE.norm_epsilon) * weight
    return normed


def _heads(z: Array) -> Array:
    return z.reshape(len(z), -1, SHAPE.head_width).swapaxes(0, 1)


def rotate(z: Array, start: int) -> Array:
    """Rotary positions start, start + 1, ... on [heads, T, head_width], halves kept apart."""
    half = SHAPE.head_width // 2
    angle = np.arange(start, start + z.shape[1])[:, None] * SHAPE.rope_base ** (-np.arange(half) / half)
    low, high = z[..., :half], z[..., half:]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)


def _attend(q: Array, k: Array, v: Array) -> Array:
    group, rows, held = SHAPE.group, q.shape[1], k.shape[1]
    k, v = np.repeat(k, group, axis=0), np.repeat(v, group, axis=0)
    score = q @ k.swapaxes(1, 2) / SHAPE.head_width**0.5
    score = np.where(np.tri(rows, held, held - rows, dtype=bool), score, -np.inf)
    weight = np.exp(score - score.max(-1, keepdims=True))
    mixed = (weight / weight.sum(-1, keepdims=True)) @ v
    joined: Array = mixed.swapaxes(0, 1).reshape(rows, -1)
    return joined
