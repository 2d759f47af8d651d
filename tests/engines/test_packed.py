"""Weights in blocks: read bit by bit, packed as the operator wants them, and the graph on them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headrace.core.errors import Unavailable
from headrace.engines.families import smollm2
from headrace.engines.families.gguf_file import read_blocks, read_gguf, read_tensor
from headrace.engines.families.llama import Checkpoint, Weights
from headrace.engines.onnx_model import Llama, graph_folder
from headrace.engines.packed import BLOCK, Blocks, rounded
from headrace.engines.runtime import chosen_device, open_session
from tests.engines import tiny_llama
from tests.engines.tiny_llama import SHAPE, Array, reference_logits


def drawn(bits: int, rows: int, columns: int, seed: int) -> Blocks:
    random = np.random.default_rng(seed)
    axes = (rows, columns // BLOCK)
    quants = random.integers(0, 2**bits, (rows, columns)).astype(np.uint8)
    scale = random.uniform(0.02, 0.05, axes).astype(np.float32) / 2 ** (bits - 4)
    offset = random.normal(0, 0.05, axes).astype(np.float32) if bits == 4 else None
    return Blocks(bits, quants, scale, offset)


def packed() -> dict[str, Blocks]:
    """A tiny checkpoint as SmolLM2's is: projections of 4 bits, the table of 8."""
    two = {name: value for name, value in tiny_llama.weights().items() if value.ndim == 2}
    return {
        name: drawn(8 if "embed" in name else 4, len(value), value.shape[1], seed)
        for seed, (name, value) in enumerate(two.items())
    }


def unpacked() -> Weights:
    return {**tiny_llama.weights(), **{name: blocks.values() for name, blocks in packed().items()}}


OWN = Checkpoint("tiny", SHAPE, "packed", unpacked, tiny_llama.prefix, packed)
FLOATS = Checkpoint("tiny", SHAPE, "floats", unpacked, tiny_llama.prefix)
X = unpacked()["model.embed_tokens.weight"][[5, 17, 3, 88, 41, 9, 60]]


def logits(given: Checkpoint, cache: Path, weights: str) -> Array:
    model = Llama(graph_folder(given, cache, weights), SHAPE, threads=1)
    kv = np.zeros((2 * SHAPE.layers, SHAPE.kv_heads, len(X), SHAPE.head_width), np.float32)
    made: Array = model.prefill(X, kv, 0)[0]
    return made


def test_q4_says_what_the_weights_say(tmp_path: Path) -> None:
    """To float32's rounding: nothing is lost on the way into the operator's blocks."""
    expected = reference_logits(unpacked(), X)[-1]
    made = logits(OWN, tmp_path, "q4")
    np.testing.assert_allclose(made, expected, atol=1e-4)
    np.testing.assert_allclose(made, logits(OWN, tmp_path, "fp32"), atol=1e-4)


@pytest.mark.parametrize("given", [OWN, FLOATS], ids=["own blocks", "rounded to 8 bits"])
def test_int8_is_near(tmp_path: Path, given: Checkpoint) -> None:
    """Activations lose bits: near, and visibly not the same."""
    expected = reference_logits(unpacked(), X)[-1]
    made = logits(given, tmp_path, "int8")
    spread = np.abs(expected).max()
    assert 1e-5 * spread < np.abs(made - expected).max() < 0.1 * spread


def test_q4_of_a_checkpoint_of_floats_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no 4-bit weights"):
        graph_folder(FLOATS, tmp_path, "q4")
    assert not [path for path in tmp_path.iterdir() if path.suffix == "" and "draft" not in path.name]


@pytest.mark.parametrize("bits", [4, 8])
def test_packing_keeps_every_number(bits: int) -> None:
    blocks = drawn(bits, 6, 2 * BLOCK, seed=1)
    raw = blocks.packed()
    low, high = raw & 15, raw >> 4
    back = raw if bits == 8 else np.stack([low, high], axis=-1)
    np.testing.assert_array_equal(back.reshape(blocks.quants.shape), blocks.quants)
    order = np.array([3, 0, 5, 1, 4, 2])
    np.testing.assert_array_equal(blocks.rows(order).values(), blocks.values()[order])
    halves = [drawn(bits, 6, 2 * BLOCK, seed=seed) for seed in (1, 2)]
    np.testing.assert_array_equal(Blocks.joined(halves).values(), np.concatenate([half.values() for half in halves]))


def test_rounding_to_8_bits_is_off_by_half_a_step_at_most() -> None:
    values = np.random.default_rng(3).normal(size=(5, 3 * BLOCK)).astype(np.float32)
    values[2, :BLOCK] = 0
    blocks = rounded(values)
    off = np.abs(blocks.values() - values).reshape(5, 3, BLOCK)
    assert (off <= 0.501 * blocks.scale[..., None]).all()


@pytest.mark.parametrize("name", ["blk.3.ffn_gate.weight", "blk.29.attn_k.weight", "token_embd.weight"])
def test_blocks_of_a_file_are_its_weights(name: str) -> None:
    """As the package gguf computes them."""
    gguf = read_gguf(smollm2.weights_path())
    some = replace(gguf.tensors[name], shape=(64, gguf.tensors[name].shape[1]))
    blocks = read_blocks(gguf, some)
    assert blocks is not None
    np.testing.assert_allclose(blocks.values(), read_tensor(gguf, some), rtol=0, atol=1e-6)
    assert read_blocks(gguf, gguf.tensors["output_norm.weight"]) is None, "floats have no blocks"


def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """onnxruntime itself would go on with the CPU and a line in its log."""
    if chosen_device("auto") == "cuda":
        pytest.skip("this onnxruntime has CUDA")
    model = graph_folder(OWN, tmp_path) / "model.onnx"
    with pytest.raises(Unavailable, match="CUDAExecutionProvider"):
        open_session(model, 1, "cuda")


@pytest.mark.parametrize("content", [b"no graph", b"", None], ids=["rubbish", "an empty file", "no file"])
def test_a_graph_that_cannot_be_read_is_a_typed_error(tmp_path: Path, content: bytes | None) -> None:
    """onnxruntime's own errors have no base but Exception: nobody could act on them."""
    file = tmp_path / "model.onnx"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Unavailable, match=str(file)):
        open_session(file, 1)
