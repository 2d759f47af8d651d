"""Steps of image preprocessing against transformers' own and torch's, over whole ranges of sizes."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headrace.engines.families.directory import Directory
from headrace.engines.families.hf_pixels import Preprocessor, centre_crop, load_preprocessor, shortest_edge
from headrace.engines.families.llava import _PREPROCESSOR, OneTile
from headrace.engines.families.llava_onevision import AnyRes, bilinear
from tests.checkpoints import picture, write_json

torch = pytest.importorskip("torch")
SIDES = st.integers(1, 60)


@settings(max_examples=150, deadline=None)
@given(width=SIDES, height=SIDES, crop_width=SIDES, crop_height=SIDES)
def test_the_crop_is_the_references(width: int, height: int, crop_width: int, crop_height: int) -> None:
    """Larger and smaller than the picture, by odd and even numbers of pixels."""
    from transformers.image_transforms import center_crop

    pixels = np.random.default_rng(0).integers(1, 256, (height, width, 3), np.uint8)
    wanted = center_crop(pixels, (crop_height, crop_width), input_data_format="channels_last")
    np.testing.assert_array_equal(centre_crop(pixels, crop_width, crop_height), wanted)


@settings(max_examples=150, deadline=None)
@given(width=st.integers(1, 4000), height=st.integers(1, 4000), edge=st.integers(1, 500))
def test_the_shortest_edge_is_the_references(width: int, height: int, edge: int) -> None:
    from transformers.image_transforms import get_resize_output_image_size
    from transformers.image_utils import ChannelDimension

    shape = np.empty((3, height, width), np.bool_)
    wanted = get_resize_output_image_size(
        shape, edge, default_to_square=False, input_data_format=ChannelDimension.FIRST
    )
    assert shortest_edge(width, height, edge) == (wanted[1], wanted[0])


@pytest.mark.parametrize(
    "changes", [{}, {"do_pad": True}, {"do_center_crop": False, "size": {"height": 9, "width": 7}}]
)
@pytest.mark.parametrize("numbers", [{}, {"do_normalize": False}, {"do_rescale": False, "rescale_factor": 2.0}])
@pytest.mark.parametrize("size", [(30, 20), (20, 31), (25, 25)])
def test_llava_prepares_as_configured(size: tuple[int, int], changes: dict[str, Any], numbers: dict[str, Any]) -> None:
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    said = {**_PREPROCESSOR, "size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    said = {**said, **changes, **numbers}
    reference = LlavaImageProcessorPil(**said)
    image = Image.open(BytesIO(picture(*size)))
    wanted = reference(images=image, return_tensors="np")["pixel_values"][0]
    (tile,) = OneTile(Preprocessor(said), 1).tiles(image)
    np.testing.assert_array_equal(tile, wanted)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 40), height=st.integers(1, 40), width=st.integers(1, 40))
def test_shrinking_is_torchs(rows: int, columns: int, height: int, width: int) -> None:
    grid = np.random.default_rng((rows, columns)).standard_normal((rows, columns, 3)).astype(np.float32)
    given_grid = torch.from_numpy(grid).permute(2, 0, 1)[None]
    wanted = torch.nn.functional.interpolate(given_grid, [height, width], mode="bilinear")[0].permute(1, 2, 0)
    np.testing.assert_allclose(bilinear(grid, height, width), wanted.numpy(), atol=1e-5, rtol=0)


@settings(max_examples=150, deadline=None)
@given(
    width=st.integers(1, 200),
    height=st.integers(1, 200),
    pinpoints=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=8),
)
def test_the_best_grid_is_the_references(width: int, height: int, pinpoints: list[tuple[int, int]]) -> None:
    """Grids in any order: of those that keep as many pixels the one that wastes least, of equals the first."""
    from transformers.image_processing_utils import select_best_resolution

    sizes = tuple((28 * down, 28 * across) for down, across in pinpoints)
    tiling = AnyRes(Preprocessor({}), sizes, side=28, patches=4, tiles_max=9)
    assert tiling.best(width, height) == select_best_resolution((height, width), list(sizes))


def test_where_the_preprocessor_is_said(tmp_path: Path) -> None:
    """preprocessor_config.json, else processor_config.json of newer checkpoints, over the class's defaults."""
    directory = Directory(tmp_path)
    assert load_preprocessor(directory, _PREPROCESSOR).side("size") == (224, 224)
    write_json(
        tmp_path / "processor_config.json", {"image_processor": {"size": {"shortest_edge": 8}, "resample": None}}
    )
    assert load_preprocessor(directory, _PREPROCESSOR).side("size") == (8, 8)
    write_json(tmp_path / "preprocessor_config.json", {"size": {"height": 6, "width": 7}, "resample": 2})
    found = load_preprocessor(directory, _PREPROCESSOR)
    assert found.side("size") == (7, 6)
    assert found.resample == Image.Resampling.BILINEAR
    assert replace(found, said={"size": 5}).side("size") == (5, 5)
