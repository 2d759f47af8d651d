"""Qwen2.5-VL and Qwen3-VL against transformers: sizes, prompts, rope positions, the exported tower, whole answers."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headrace.core.errors import InvalidInput
from headrace.core.types import MediaMeta, MediaSpan
from headrace.engines.families.directory import Directory, open_decoder
from headrace.engines.families.qwen_vl import Grid, Patching, positions, taps, windows
from tests.checkpoints import picture
from tests.checkpoints_more import build
from tests.families import reference
from tests.families.served import (
    Asked,
    Served,
    generated,
    handed_over,
    inputs,
    logprobs,
    rows_without_torch,
    run,
    serve,
)

pytest.importorskip("torch")

KINDS = ("qwen2_5_vl", "qwen3_vl")
# A multiple of the window and not, wide, tall, one that grows to the least size, one that shrinks to the most.
SIZES = ((56, 56), (60, 40), (100, 30), (33, 90), (9, 12), (300, 200))
ASKED: tuple[Asked, ...] = (
    ("What is this?", picture(60, 40)),
    ("Tell me a story about nothing at all.",),
    (picture(100, 30, 1), "and ", picture(33, 90, 2), picture(60, 40, 3), "which one is wide?"),
    (picture(9, 12, 4),),
)


@pytest.fixture(scope="module", params=KINDS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Served:
    reference.quiet()
    return serve(build(request.param, tmp_path_factory.mktemp("qwen_vl")), "image", cache_dir)


def rows_of(network: Any, given: Any) -> np.ndarray:
    import torch

    with torch.no_grad():
        found = network.model.get_image_features(given["pixel_values"], given["image_grid_thw"])
    parts = [torch.cat(found.pooler_output), *(torch.cat(deep) for deep in getattr(found, "deepstack_features", []))]
    return np.asarray(torch.cat(parts, dim=1).numpy(), np.float32)


def test_prompt_and_rows_are_the_references(served: Served, network: Any, processor: Any) -> None:
    """Several pictures of different grids in one batch come back in their order."""
    asked: Asked = tuple(picture(*size, seed=number) for number, size in enumerate(SIZES))
    given = inputs(processor, asked)
    assert list(served.prompt(asked).tokens) == given["input_ids"][0].tolist()
    rows = served.embeddings(asked)
    assert [len(part) for part in rows] == [media.tokens for media in served.media(asked)]
    np.testing.assert_allclose(np.concatenate(rows), rows_of(network, given), atol=1e-4)


@pytest.mark.parametrize("asked", ASKED, ids=("one", "text", "three", "smallest"))
def test_rope_positions_are_the_references(served: Served, network: Any, processor: Any, asked: Asked) -> None:
    given, prompt = inputs(processor, asked), served.prompt(asked)
    found, following = open_decoder(served.path).positions(len(prompt.tokens), prompt.spans)
    if not prompt.spans:
        assert (found == np.arange(len(prompt.tokens))).all()
        assert following == len(prompt.tokens)
        return
    wanted, delta = network.model.get_rope_index(
        given["input_ids"], given["mm_token_type_ids"], given["image_grid_thw"]
    )
    np.testing.assert_array_equal(found, wanted[:, 0].numpy())
    assert following == len(prompt.tokens) + int(delta[0, 0])


def test_answers_are_those_of_generate(served: Served, network: Any, processor: Any) -> None:
    """Four requests that arrive one after the other, prefilled in chunks beside those that decode."""
    wanted = [generated(network, inputs(processor, asked)).tokens for asked in ASKED]
    assert len({tuple(tokens) for tokens in wanted}) == len(wanted)
    assert all(len(set(tokens)) > 2 for tokens in wanted), "answers that do not vary prove nothing"
    assert run(served.engine(), [served.sequence(number, asked) for number, asked in enumerate(ASKED)]) == wanted


def test_a_decode_worker_goes_on_from_the_kv(served: Served, network: Any, processor: Any) -> None:
    sequence = served.sequence(0, ASKED[2])
    wanted = generated(network, inputs(processor, ASKED[2])).tokens
    assert handed_over(served.engine(), served.engine(), sequence, after=5) == wanted


def test_what_is_wrong_shows(served: Served, network: Any, processor: Any) -> None:
    """The answers hang on every picture, on their order, and on the rope's grids."""
    wanted = generated(network, inputs(processor, ASKED[2])).logprobs
    right = served.sequence(0, ASKED[2])
    np.testing.assert_allclose(logprobs(served.engine(), right), wanted, atol=1e-3)
    first, second, third = right.embeddings
    flat = [replace(span, grid=(1, 1, span.length)) for span in right.spans]
    for wrong in (
        replace(right, embeddings=(np.zeros_like(first), second, third)),
        replace(right, embeddings=(first, second, np.ascontiguousarray(third[::-1]))),
        replace(right, spans=tuple(flat)),
    ):
        assert np.abs(logprobs(served.engine(), wrong) - wanted).max() > 0.01


def test_services_need_no_torch(served: Served, tmp_path: Path) -> None:
    (wanted,) = served.embeddings((picture(60, 40),))
    np.testing.assert_array_equal(rows_without_torch(served, picture(60, 40), tmp_path), wanted)


# --- without a model ---

REAL = Patching(14, 2, 2, 56 * 56, 14 * 14 * 4 * 1280, (0.5,) * 3, (0.5,) * 3)


@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([(784, 9408), (3136, 12_845_056)]))
@settings(max_examples=300, deadline=None)
def test_sizes_are_the_references(width: int, height: int, bounds: tuple[int, int]) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    patching = replace(REAL, pixels_min=bounds[0], pixels_max=bounds[1])
    meta = MediaMeta("image", "image/png", width, height, 1)
    try:
        down, across = smart_resize(height, width, 28, *bounds)
    except ValueError:
        with pytest.raises(InvalidInput, match="at most 200:1"):
            patching.tokens(meta)
        return
    assert patching.size(width, height) == (across, down)
    assert patching.tokens(meta) == down * across // 28**2
    assert np.prod(patching.span_grid(meta)) == patching.tokens(meta)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_windows_are_the_references(down: int, across: int, side: int) -> None:
    import torch
    from transformers.vision_utils import get_vision_window_index

    found = windows(Grid(2 * down, 2 * across), 2, side)
    index, bounds = get_vision_window_index(torch.tensor([[1, 2 * down, 2 * across]]), 2, side * 14, 7)
    order = (index[:, None] * 4 + torch.arange(4)).flatten().numpy()
    present = found.absent == 0
    np.testing.assert_array_equal(found.members[present], order)
    np.testing.assert_array_equal(present.sum(1), np.diff(bounds.numpy()))
    np.testing.assert_array_equal(found.members.reshape(-1)[found.back], np.arange(4 * down * across))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(2, 9))
@settings(max_examples=60, deadline=None)
def test_interpolated_positions_are_the_references(down: int, across: int, side: int) -> None:
    import torch
    from transformers.vision_utils import get_vision_interpolation_indices_and_weights as wanted

    grid = torch.tensor([[1, 2 * down, 2 * across]])
    indices, weights = wanted(grid, side, align_corners=True, spatial_merge_size=2)
    table = np.random.default_rng(0).standard_normal(side * side).astype(np.float32)
    found = taps(Grid(2 * down, 2 * across), 2, side)
    learned = (table[indices.numpy()] * weights.numpy()).sum(1)
    np.testing.assert_allclose((table[found[0]] * found[1]).sum(1), learned, atol=1e-5)


def test_positions_go_on_behind_the_longer_side() -> None:
    span = MediaSpan(0, 2, 6, grid=(1, 2, 3))
    found, following = positions(9, [span])
    assert found.tolist() == [
        [0, 1, 2, 2, 2, 2, 2, 2, 5],
        [0, 1, 2, 2, 2, 3, 3, 3, 5],
        [0, 1, 2, 3, 4, 2, 3, 4, 5],
    ]
    assert following == 6


def test_a_photo_on_its_side_counts_upright(served: Served) -> None:
    """A camera's EXIF rotation swaps the grid: what the gateway counts is what the encoder returns."""
    exif, out = Image.Exif(), BytesIO()
    exif[0x0112] = 6
    Image.open(BytesIO(picture(100, 30))).save(out, "JPEG", exif=exif)
    (media,) = served.media((out.getvalue(),))
    assert (media.meta.width, media.meta.height) == (30, 100)
    (span,) = served.prompt((out.getvalue(),)).spans
    assert span.grid[1] > span.grid[2]
    (rows,) = served.embeddings((out.getvalue(),))
    assert len(rows) == media.tokens


def test_a_strip_is_refused_at_the_door(served: Served) -> None:
    with pytest.raises(InvalidInput, match="at most 200:1"):
        served.modality.probe(picture(404, 2))


def test_a_tower_that_was_not_exported_is_named(served: Served, tmp_path: Path) -> None:
    from headrace.core.errors import Unavailable

    other = build(Directory(served.path).config["model_type"], tmp_path, seed=1)
    with pytest.raises(Unavailable, match="headrace model export"):
        Served(other, "image").modality.load(1)
