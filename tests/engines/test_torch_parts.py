"""The torch engine's parts alone: rotary frequencies, blocks and places, how segments are grouped, what is refused."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.errors import Unavailable
from headrace.engines.families.decoder import Decoder, Rope, refuse_sliding_window, rope_of, text_decoder
from headrace.engines.families.directory import Directory
from headrace.engines.torch_decoder import Attention, Layer, TorchDecoder
from headrace.engines.torch_kv import PagedKv
from headrace.engines.torch_load import checkpoint_decoder
from headrace.engines.torch_parking import Mover
from headrace.engines.torch_planner import by_shape
from headrace.engines.torch_rope import Rotary, axis_of_frequency, frequencies, turn
from headrace.engines.torch_rows import Segment
from headrace.engines.torch_weights import Linear
from tests.engines.tiny_llama import CHECKPOINT

CPU = torch.device("cpu")
CONTEXT = 4096
SCALINGS: list[dict[str, Any]] = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 3.0},
    {"rope_type": "dynamic", "factor": 2.0},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    },
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024},
    {"rope_type": "yarn", "factor": 4.0, "beta_fast": 16, "beta_slow": 2, "mscale": 1.0, "mscale_all_dim": 0.8},
    {"rope_type": "yarn", "factor": 2.0, "attention_factor": 1.2, "truncate": False},
]


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda scaling: str(scaling["rope_type"]))
def test_turned_heads_equal_transformers_to_the_last_position(scaling: dict[str, Any]) -> None:
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    config = transformers.LlamaConfig(
        hidden_size=128,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_theta": 50_000.0, **scaling},
    )
    positions, heads = torch.tensor([[0, 1, 255, 1024, CONTEXT - 1]]), torch.randn(5, 2, 64)
    cos, sin = LlamaRotaryEmbedding(config)(heads, positions)
    expected, _ = apply_rotary_pos_emb(heads.transpose(0, 1)[None], heads.transpose(0, 1)[None], cos, sin)
    rope = rope_of("test", config.to_dict(), 64)
    turned = turn(heads, *Rotary(rope, CPU, torch.float32).rows(positions))
    assert torch.allclose(turned, expected[0].transpose(0, 1), rtol=0, atol=2e-6)


def test_part_of_a_head_is_turned() -> None:
    rope = rope_of("test", {"partial_rotary_factor": 0.25, "rope_theta": 100.0}, 64)
    heads = torch.randn(3, 2, 64)
    turned = turn(heads, *Rotary(rope, CPU, torch.float32).rows(torch.tensor([[1, 2, 3]])))
    assert rope.width == 16
    assert torch.equal(turned[..., 16:], heads[..., 16:])
    assert not torch.isclose(turned[..., :16], heads[..., :16]).all(dim=-1).any()


def test_older_files_say_rope_scaling() -> None:
    stated = {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}, "max_position_embeddings": 64}
    frequency, scale = frequencies(rope_of("old", stated, 8))
    expected = 1 / 500.0 ** (np.arange(0, 8, 2) / 8) / 2
    assert np.allclose(frequency.numpy(), expected)
    assert scale == 1.0


@pytest.mark.parametrize(
    ("sections", "interleaved", "expected"),
    [
        ((2, 3, 3), False, [0, 0, 1, 1, 1, 2, 2, 2]),
        ((4, 2, 2), True, [0, 1, 2, 0, 1, 2, 0, 0]),
        ((4, 3, 1), True, [0, 1, 2, 0, 1, 0, 0, 1]),
    ],
)
def test_axes_of_frequencies(sections: tuple[int, ...], interleaved: bool, expected: list[int]) -> None:
    assert axis_of_frequency(Rope(1e4, 16, sections=sections, interleaved=interleaved)) == expected


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"rope_scaling": {"rope_type": "longrope"}}, "rope scaling 'longrope' is not run"),
        ({"sliding_window": 64, "max_position_embeddings": 128}, "sliding window of 64"),
        (
            {"sliding_window": 64, "layer_types": ["full_attention", "sliding_attention"]},
            "sliding window of 64",
        ),
    ],
)
def test_what_is_not_run_is_refused(config: Mapping[str, Any], why: str) -> None:
    fields = {"num_attention_heads": 2, "hidden_size": 8, "max_position_embeddings": 128, **config}
    with pytest.raises(Unavailable, match=why):
        text_decoder(Directory(Path("/nowhere")), fields, str)


@pytest.mark.parametrize(
    "config",
    [
        {"sliding_window": None},
        {"sliding_window": 64, "use_sliding_window": False},
        {"sliding_window": 128},
        {"sliding_window": 64, "layer_types": ["full_attention"]},
    ],
)
def test_windows_that_cut_nothing_off_are_run(config: Mapping[str, Any]) -> None:
    refuse_sliding_window("test", {"max_position_embeddings": 128, **config})


def cache(layers: int, crossing: int, blocks: int, block_tokens: int) -> PagedKv:
    decoder = Decoder(
        directory=Path("/nowhere"),
        fingerprint="",
        layers=layers + crossing,
        width=4,
        query_heads=1,
        kv_heads=1,
        head_width=2,
        vocab=4,
        norm_epsilon=1e-5,
        rope=Rope(1e4, 2),
        rename=str,
        tied=True,
        cross_layers=tuple(range(crossing)),
    )
    return PagedKv(decoder, blocks=blocks, block_tokens=block_tokens, device=CPU, dtype=torch.float32)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 30), st.integers(1, 40), st.randoms(use_true_random=False))
def test_every_number_of_a_cache_has_a_place_of_its_own(
    layers: int, crossing: int, tokens: int, rows: int, random: Any
) -> None:
    """Tokens first, media's rows behind them, in blocks that are scattered; none touches another sequence's."""
    kv = cache(layers, crossing, blocks=48, block_tokens=4)  # as many as the largest of all takes
    reserved = tokens + -(-rows * crossing // layers)
    blocks = np.array(random.sample(range(48), -(-reserved // 4)), np.int64)
    plane = 49 * 4
    own = [layer * plane + place for layer in range(layers) for place in kv.places(blocks, 0, tokens).tolist()]
    beside = kv.crossing_places(blocks, tokens, crossing, rows)
    assert beside.shape == (crossing, rows)
    everything = [*own, *beside.reshape(-1).tolist()]
    assert len(set(everything)) == len(everything)
    assert {place % plane // 4 for place in everything} <= set(blocks.tolist())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=40))
def test_blocks_are_free_or_owned(counts: list[int]) -> None:
    """A count takes that many blocks; where there are too few, the oldest owner gives his back."""
    kv, owned = cache(1, 0, blocks=16, block_tokens=4), list[Any]()
    for count in counts:
        while len(kv) + count > 16:
            kv.give(owned.pop(0))
        owned.append(kv.take(count))
        kv.check_integrity(owned)
        assert len(kv) == sum(map(len, owned))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 5000)), min_size=1, max_size=12))
def test_groups_pad_little(shapes: list[tuple[int, int]]) -> None:
    """(new rows, rows before them) of each segment."""
    segments = [Segment(cast(Any, SimpleNamespace(prefix_len=0)), before, before + rows) for rows, before in shapes]
    groups = by_shape(segments, lambda segment: segment.kv_stop)
    assert sorted(map(id, segments)) == sorted(id(segment) for group in groups for segment in group)
    for group in groups:
        rows, held = [segment.rows for segment in group], [max(512, segment.kv_stop) for segment in group]
        assert max(rows) < 4 * min(rows) or max(rows) == min(rows) == 1
        assert max(held) <= 4 * min(held)


def test_weights_move_once_and_stay_tied() -> None:
    """To another device and back: every tensor, in parts and lists too, and one that two share stays one."""
    decoder = TorchDecoder(checkpoint_decoder(CHECKPOINT), device=torch.device("cpu"), dtype=torch.bfloat16)
    parts = (Layer, Attention, Linear, Rotary)

    def tensors(holder: Any) -> list[Any]:
        found = []
        for value in vars(holder).values():
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, torch.Tensor):
                    found.append(each)
                elif isinstance(each, parts):
                    found += tensors(each)
        return found

    before = tensors(decoder)
    Mover(torch.device("meta"), parts).move(decoder)
    moved = tensors(decoder)
    assert len(moved) == len(before) > 20
    assert {tensor.device.type for tensor in moved} == {"meta"}
    assert len({id(tensor) for tensor in moved}) == len({id(tensor) for tensor in before}) == len(before) - 1
    assert decoder._head._weight is decoder._embedding
