"""Mllama against transformers: tiles, the exported tower, who sees which rows, whole answers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.types import MediaSpan
from headrace.engines.families.crossing import cross_rows, first_crossing, seen_rows
from headrace.engines.families.mllama_tiles import Tiling, tower_inputs
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

TILING = Tiling(side=28, tiles_max=4, rows=5)
# One tile and four, wide, tall, larger than every canvas.
SIZES = ((20, 20), (60, 40), (100, 30), (28, 84), (300, 200))
ASKED: tuple[Asked, ...] = (
    (picture(20, 20), "What is this?"),
    ("Tell me a story about nothing at all.",),
    (picture(100, 30, 1), picture(20, 20, 2), "which one is wide?"),
    ("First look at ", picture(28, 84, 3), "then at ", picture(20, 25, 4), "and say what changed."),
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Served:
    reference.quiet()
    return serve(build("mllama", tmp_path_factory.mktemp("mllama")), "image", cache_dir)


def rows_of(network: Any, given: Any) -> np.ndarray:
    import torch

    names = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")
    with torch.no_grad():
        states = network.model.vision_model(**{name: given[name] for name in names}).last_hidden_state
        rows = network.model.multi_modal_projector(states)[0]
    return np.asarray(rows.flatten(1, 2).numpy(), np.float32)


def test_prompt_and_rows_are_the_references(served: Served, network: Any, processor: Any) -> None:
    """Pictures of one to four tiles in one batch come back in their order, padding tiles and all."""
    asked: Asked = tuple(picture(*size, seed=number) for number, size in enumerate(SIZES))
    given, prompt = inputs(processor, asked), served.prompt(asked)
    assert list(prompt.tokens) == given["input_ids"][0].tolist()
    rows = served.embeddings(asked)
    assert [len(part) for part in rows] == [media.tokens for media in served.media(asked)]
    assert [span.grid[0] for span in prompt.spans] == given["aspect_ratio_mask"].sum(-1)[0].tolist()
    np.testing.assert_allclose(np.stack(rows), rows_of(network, given), atol=1e-4)


@pytest.mark.parametrize("asked", [ASKED[0], *ASKED[2:]], ids=("one", "in a row", "apart"))
def test_what_tokens_see_is_the_references(served: Served, processor: Any, asked: Asked) -> None:
    """The rows are numbered to find them again in the reference's mask [tokens, pictures, tiles]."""
    prompt, mask = served.prompt(asked), inputs(processor, asked)["cross_attention_mask"][0].numpy()
    each = TILING.tiles_max * TILING.rows
    numbered = [np.arange(each, dtype=np.float32)[:, None] + each * span.part for span in prompt.spans]
    order = cross_rows(prompt.spans, numbered)[:, 0].astype(int)
    wanted = mask.repeat(TILING.rows, axis=2).reshape(len(prompt.tokens), -1) == 1
    before = ~wanted.any(axis=1)
    assert before.nonzero()[0].tolist() == list(range(first_crossing(prompt.spans)))
    wanted[before] = True
    found = np.zeros_like(wanted)
    for token, (first, end) in enumerate(seen_rows(len(prompt.tokens), prompt.spans)):
        found[token, order[first:end]] = True
    np.testing.assert_array_equal(found, wanted)


def test_kv_beside_the_prompt_is_counted(served: Served) -> None:
    """Two cross-attention layers of five: 20 rows are 40 of 3 self-attention layers' parts, 14 tokens."""
    (span,) = served.prompt(ASKED[0]).spans
    assert (span.length, span.rows, span.kv_tokens) == (1, 20, 14)
    assert served.prompt(ASKED[0]).kv_tokens == len(served.prompt(ASKED[0]).tokens) + 14
    assert served.family.spec.contract == "cross"


def test_answers_are_those_of_generate(served: Served, network: Any, processor: Any) -> None:
    """Four requests that arrive one after the other, prefilled in chunks beside those that decode."""
    wanted = [generated(network, inputs(processor, asked)).tokens for asked in ASKED]
    assert len({tuple(tokens) for tokens in wanted}) == len(wanted)
    assert all(len(set(tokens)) > 2 for tokens in wanted), "answers that do not vary prove nothing"
    assert run(served.engine(), [served.sequence(number, asked) for number, asked in enumerate(ASKED)]) == wanted


@pytest.mark.parametrize("asked", ASKED[2:], ids=("in a row", "apart"))
def test_a_decode_worker_goes_on_from_the_kv(served: Served, network: Any, processor: Any, asked: Asked) -> None:
    wanted = generated(network, inputs(processor, asked)).tokens
    assert handed_over(served.engine(), served.engine(), served.sequence(0, asked), after=5) == wanted


def test_what_is_wrong_shows(served: Served, network: Any, processor: Any) -> None:
    """The answer hangs on both pictures, on where they stand, and on the rows of padding tiles."""
    wanted = generated(network, inputs(processor, ASKED[3])).logprobs
    right = served.sequence(0, ASKED[3])
    np.testing.assert_allclose(logprobs(served.engine(), right), wanted, atol=1e-3)
    first, second = right.embeddings
    moved = [replace(span, offset=span.offset + 3) for span in right.spans]
    without_padding = second.copy()
    without_padding[TILING.rows :] = 0
    for wrong in (
        replace(right, embeddings=(np.zeros_like(first), second)),
        replace(right, embeddings=(first, np.zeros_like(second))),
        replace(right, embeddings=(first, without_padding)),
        replace(right, spans=tuple(moved)),
    ):
        assert np.abs(logprobs(served.engine(), wrong) - wanted).max() > 0.01


def test_services_need_no_torch(served: Served, tmp_path: Path) -> None:
    (wanted,) = served.embeddings((picture(60, 40),))
    np.testing.assert_array_equal(rows_without_torch(served, picture(60, 40), tmp_path), wanted)


# --- without a model ---


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([28, 448, 560]), st.integers(1, 6))
@settings(max_examples=300, deadline=None)
def test_canvases_are_the_references(width: int, height: int, side: int, tiles_max: int) -> None:
    from transformers.models.mllama import image_processing_pil_mllama as wanted

    tiling = replace(TILING, side=side, tiles_max=tiles_max)
    canvas = tiling.canvas(width, height)
    down, across = wanted.get_optimal_tiled_canvas(height, width, tiles_max, side)
    assert (canvas.down * side, canvas.across * side) == (down, across)
    new_height, new_width = wanted.get_image_size_fit_to_canvas(height, width, down, across, side)
    assert tiling.size(width, height) == (new_width, new_height)
    ratios = wanted.get_all_supported_aspect_ratios(tiles_max)
    assert [(one.down, one.across) for one in tiling.canvases()] == ratios


@pytest.mark.parametrize("tiles", [1, 2, 3, 4])
def test_every_row_of_the_tower_is_real_or_padding(tiles: int) -> None:
    found = tower_inputs(TILING, tiles)
    assert len(found["real"]) == tiles * TILING.rows
    joined = np.concatenate([found["real"], found["padding"]])
    np.testing.assert_array_equal(joined[found["back"]], np.arange(4 * TILING.lanes))


def span(part: int, offset: int, tiles: int = 1) -> MediaSpan:
    return MediaSpan(part, offset, 1, grid=(tiles, 5), rows=20)


SEEN = {
    "one picture is seen to the end": ([span(0, 2, 3)], [(0, 20), (0, 20), (0, 15), (0, 15), (0, 15)]),
    "the next one takes over": ([span(0, 1), span(1, 3)], [(0, 40), (0, 5), (0, 5), (5, 10), (5, 10)]),
    "in a row they are one": ([span(0, 0), span(1, 1), span(2, 3)], [(0, 5), (0, 10), (0, 10), (10, 15), (10, 15)]),
    "parts come in the prompt's order": ([span(1, 3, 2), span(0, 1)], [(0, 40), (0, 5), (0, 5), (5, 15), (5, 15)]),
}


@pytest.mark.parametrize("case", SEEN)
def test_seen_rows(case: str) -> None:
    spans, wanted = SEEN[case]
    assert [tuple(row) for row in seen_rows(5, spans).tolist()] == wanted
