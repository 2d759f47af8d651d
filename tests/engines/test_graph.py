"""The ONNX graph computes what a plain numpy Llama computes, in each of its uses and forms."""

from pathlib import Path

import numpy as np
import pytest

from headrace.engines.families.llama import Checkpoint
from headrace.engines.graph import rotary_tables
from headrace.engines.kvcache import Group, Kv
from headrace.engines.onnx_model import Llama, graph_folder
from headrace.engines.runtime import Memory
from headrace.engines.segments import layer_ranges
from tests.engines import tiny_llama
from tests.engines.tiny_llama import PREFIX_TOKENS, SHAPE, VOCAB, Array, reference_logits

TOLERANCE = 4e-4  # of logits up to 20, with rotary tables in float32 at position 2,000
WEIGHTS = tiny_llama.weights()
EMBED = WEIGHTS["model.embed_tokens.weight"]


CHECKPOINT = Checkpoint("tiny", SHAPE, "test", tiny_llama.weights, tiny_llama.prefix)
COPIES = Memory("cpu", shared=False)  # what a GPU's memory is: the code of one, run without one


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", params=["whole", "in segments", "as on a gpu", "as on a gpu in segments"])
def model(request: pytest.FixtureRequest, cache: Path) -> Llama:
    segments = 2 if "segments" in request.param else 1
    if "gpu" in request.param:
        folder = graph_folder(CHECKPOINT, cache, fused=False)
        return Llama(folder, SHAPE, threads=1, segments=segments, memory=COPIES)
    return Llama(graph_folder(CHECKPOINT, cache), SHAPE, threads=1, segments=segments)


def tokens(count: int, seed: int = 1) -> Array:
    return EMBED[np.random.default_rng(seed).integers(0, VOCAB, count)]


def filled(model: Llama, x: Array, past: Kv) -> tuple[Array, Kv]:
    """Logits of the last row and the whole KV, in memory that has room for a few positions more."""
    arrays, kv_heads, held, width = past.shape
    kv = np.full((arrays, kv_heads, held + len(x) + 3, width), np.nan, np.float32)
    kv[:, :, :held] = past
    (logits,) = model.prefill(x, kv, held)
    assert np.isnan(kv[:, :, held + len(x) :]).all(), "what lies behind is left alone"
    return logits, kv[:, :, : held + len(x)]


def past_of(length: int) -> tuple[Kv, Array]:
    """A past as the engine holds it and as the reference takes it."""
    axes = (SHAPE.layers, 2, SHAPE.kv_heads, length, SHAPE.head_width)
    kv = np.random.default_rng(length).normal(size=axes).astype(np.float32)
    return kv.reshape(2 * SHAPE.layers, *axes[2:]), kv


@pytest.mark.parametrize("count", [1, 2, 17, 200])
def test_prefill_without_a_past(model: Llama, count: int) -> None:
    x = tokens(count)
    logits, kv = filled(model, x, past_of(0)[0])
    np.testing.assert_allclose(logits, reference_logits(WEIGHTS, x)[-1], atol=TOLERANCE)
    assert np.isfinite(kv).all()


@pytest.mark.parametrize("held", [1, PREFIX_TOKENS, 300, 1990])
def test_prefill_on_a_past(model: Llama, held: int) -> None:
    x, (past, reference_past) = tokens(9), past_of(held)
    logits, kv = filled(model, x, past)
    np.testing.assert_allclose(logits, reference_logits(WEIGHTS, x, reference_past)[-1], atol=TOLERANCE)
    np.testing.assert_array_equal(kv[:, :, :held], past)


def test_chunks_add_up(model: Llama) -> None:
    x = tokens(40)
    _, head = filled(model, x[:25], past_of(0)[0])
    logits, _ = filled(model, x[25:], head)
    np.testing.assert_allclose(logits, reference_logits(WEIGHTS, x)[-1], atol=TOLERANCE)


@pytest.mark.parametrize("held", [0, PREFIX_TOKENS])
def test_prompts_of_one_row_do_not_see_each_other(model: Llama, held: int) -> None:
    prompts, (past, reference_past) = [tokens(count, seed=count) for count in (1, 12, 5)], past_of(held)
    logits, new = model.prefill_packed(prompts, past)
    at = 0
    for row, x in enumerate(prompts):
        np.testing.assert_allclose(logits[row], reference_logits(WEIGHTS, x, reference_past)[-1], atol=TOLERANCE)
        _, alone = filled(model, x, past)
        np.testing.assert_allclose(new[:, :, at : at + len(x)], alone[:, :, held:], atol=TOLERANCE)
        at += len(x)


def test_decode_of_rows_of_several_lengths(model: Llama) -> None:
    lengths, group = [3, 150, 64], Group(SHAPE, rows=4, capacity=512)
    for row, length in enumerate(lengths):
        group.append(tiny_llama.sequence(f"r{row}", [1]).key, past_of(length)[0])
    group.make_room()
    logits = model.decode([5, 6, 7], group)
    for row, length in enumerate(lengths):
        expected = reference_logits(WEIGHTS, EMBED[[5 + row]], past_of(length)[1])[-1]
        np.testing.assert_allclose(logits[row], expected, atol=TOLERANCE)


def test_a_group_decodes_on_and_tells_its_kv(model: Llama) -> None:
    """Rows join, decode, are looked at and leave, wherever the group's KV lies meanwhile."""
    x, (past, _) = tokens(9), past_of(3)
    _, whole = filled(model, x, past)
    group, key = Group(SHAPE, rows=3, capacity=512), tiny_llama.sequence("r", [1]).key
    group.append(tiny_llama.sequence("goes", [1]).key, past)
    group.append(key, past)
    ids = [int(np.flatnonzero((row == EMBED).all(1))[0]) for row in x]
    for step, token in enumerate(ids):
        group.make_room()
        model.decode([token] * len(group), group)
        if step == 4:
            group.drop(group.owners[0])
        if step % 3 == 0:
            held = 3 + step + 1
            np.testing.assert_allclose(group.view(key), whole[:, :, :held], atol=TOLERANCE)
    np.testing.assert_allclose(group.view(key), whole, atol=TOLERANCE)


def test_segments_tell_which_layers_are_done(cache: Path) -> None:
    """In order, each once, and what is told is final and the same as without segments."""
    whole, cut = (Llama(graph_folder(CHECKPOINT, cache), SHAPE, threads=1, segments=count) for count in (1, 3))
    kv, told = np.zeros((2 * SHAPE.layers, SHAPE.kv_heads, 9, SHAPE.head_width), np.float32), list[tuple[slice, Kv]]()
    logits = cut.prefill(tokens(9), kv, 0, lambda arrays: told.append((arrays, kv[arrays].copy())))
    expected, expected_kv = filled(whole, tokens(9), past_of(0)[0])
    assert [arrays for arrays, _ in told] == [slice(0, 2), slice(2, 4), slice(4, 6)]
    np.testing.assert_array_equal(np.concatenate([values for _, values in told]), expected_kv)
    np.testing.assert_array_equal(logits[0], expected)


@pytest.mark.parametrize(("layers", "count", "sizes"), [(3, 2, [1, 2]), (30, 4, [7, 8, 7, 8]), (5, 5, [1] * 5)])
def test_segments_share_the_layers_evenly(layers: int, count: int, sizes: list[int]) -> None:
    ranges = layer_ranges(layers, count)
    assert [len(part) for part in ranges] == sizes
    assert [layer for part in ranges for layer in part] == list(range(layers))


def test_the_reference_tells_a_wrong_rotary_offset(model: Llama) -> None:
    """Else the tests above would not notice positions that are off by one."""
    x, (past, reference_past) = tokens(9), past_of(PREFIX_TOKENS)
    shifted = reference_logits(WEIGHTS, x, reference_past, turn=lambda z, at: tiny_llama.rotate(z, at + 1))
    assert np.abs(filled(model, x, past)[0] - shifted[-1]).max() > 100 * TOLERANCE


def test_rotary_tables_cover_the_context() -> None:
    cos, sin = rotary_tables(SHAPE)
    assert cos.shape == sin.shape == (SHAPE.context_tokens, SHAPE.head_width // 2)
    np.testing.assert_allclose(cos**2 + sin**2, 1, atol=1e-6)
