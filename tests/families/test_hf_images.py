"""Images of Hugging Face families against transformers: pixels, counts, embeddings, prompts.

Needs torch; the families themselves run without it.
"""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headrace.core.types import Media
from headrace.engines.families import ChatMessage, Family, MediaPart, TextPart, family
from headrace.engines.families.hf_image import HfImages, Tiles
from tests.checkpoints import picture
from tests.families import reference

pytest.importorskip("torch")

KINDS = ("llava", "llava_onevision", "internvl")
Sizes = tuple[tuple[int, int], ...]
REQUESTS: tuple[tuple[str, Sizes], ...] = (
    ("one tile exactly", ((28, 28),)),
    ("odd sides", ((41, 31), (31, 41))),
    ("smaller than a tile", ((7, 9),)),
    ("several, of different sizes", ((20, 50), (100, 33), (64, 64))),
    ("hair-thin", ((300, 20), (20, 300))),
    ("far larger than the largest grid", ((400, 333),)),
)


class Pair:
    """A family and its reference, on one directory."""

    def __init__(self, path: Path) -> None:
        self.family: Family = family(str(path))
        self.images = self.family.modality("image")
        self.encoder = self.images.load(threads=1)
        self.processor = reference.processor(path)
        self.model = reference.model(path)

    def given(self, pictures: list[bytes], text: str) -> Any:
        content = [*({"type": "image"} for _ in pictures), {"type": "text", "text": text}]
        return reference.inputs(self.processor, [{"role": "user", "content": content}], pictures)

    def media(self, pictures: list[bytes]) -> list[Media]:
        metas = [self.images.probe(data) for data in pictures]
        return [Media(meta, "", self.images.token_count(meta)) for meta in metas]

    def preprocess(self, pictures: list[bytes]) -> list[Tiles]:
        return [self.encoder.preprocess(data, self.images.probe(data)) for data in pictures]


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, exported: Callable[[str], Path]) -> Pair:
    return Pair(exported(request.param))


@pytest.mark.parametrize(("case", "sizes"), REQUESTS, ids=[case for case, _ in REQUESTS])
def test_a_request_is_what_the_reference_makes_of_it(pair: Pair, case: str, sizes: Sizes) -> None:
    pictures = [picture(*size, seed=number) for number, size in enumerate(sizes)]
    given = pair.given(pictures, "how many?")

    inputs = pair.preprocess(pictures)
    wanted = given["pixel_values"].numpy()
    if wanted.ndim == 5:  # images padded to as many tiles as the largest has
        wanted = np.concatenate([image[: len(mine.pixels)] for image, mine in zip(wanted, inputs, strict=True)])
    np.testing.assert_array_equal(np.concatenate([image.pixels for image in inputs]), wanted)

    rows = pair.encoder.encode(inputs)
    media = pair.media(pictures)
    assert [len(found) for found in rows] == [part.tokens for part in media]
    np.testing.assert_allclose(np.concatenate(rows), reference.image_rows(pair.model, given), atol=1e-4, rtol=0)

    parts: tuple[TextPart | MediaPart, ...] = (
        *(MediaPart(number) for number in range(len(pictures))),
        TextPart("how many?"),
    )
    prompt = pair.family.render([ChatMessage("user", parts)], media)
    assert list(prompt.tokens) == given["input_ids"][0].tolist()
    assert [(span.part, span.length) for span in prompt.spans] == [(n, part.tokens) for n, part in enumerate(media)]
    for span in prompt.spans:
        ids = prompt.tokens[span.offset : span.offset + span.length]
        assert set(ids) <= {pair.family.spec.placeholder_id}


@settings(max_examples=150, deadline=None)
@given(width=st.integers(1, 3000), height=st.integers(1, 3000))
def test_tokens_are_counted_as_the_processor_does(pair: Pair, width: int, height: int) -> None:
    wanted = pair.processor._get_num_multimodal_tokens(image_sizes=[(height, width)])["num_image_tokens"][0]
    around = 2 if pair.family.spec.family == "internvl" else 0  # it counts the tokens before and behind
    assert isinstance(pair.images, HfImages)
    assert pair.images.tiling.rows(width, height) == wanted - around


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 250), height=st.integers(1, 250))
def test_the_count_is_what_the_tiles_pack_to(pair: Pair, width: int, height: int) -> None:
    """Without the tower: rows of zeros in the place of its output."""
    assert isinstance(pair.images, HfImages)
    tiling = pair.images.tiling
    tiles = tiling.tiles(Image.new("RGB", (width, height)))
    rows_of_tile = {"llava": 16, "llava_onevision": 16, "internvl": 4}[pair.family.spec.family]
    features = np.zeros((len(tiles), rows_of_tile, 64), np.float32)
    packed = tiling.pack(features, width, height, {"newline": np.zeros(64, np.float32)})
    assert packed.shape == (tiling.rows(width, height), 64)


def test_a_photograph_counts_upright(pair: Pair) -> None:
    """EXIF turns it: probe, count and tiles agree, and are those of the picture as it is seen."""
    upright = Image.open(BytesIO(picture(60, 25)))
    exif, data = Image.Exif(), BytesIO()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(data, "JPEG", exif=exif, quality=95)
    meta = pair.images.probe(data.getvalue())
    assert (meta.width, meta.height) == (60, 25)
    (rows,) = pair.encoder.encode([pair.encoder.preprocess(data.getvalue(), meta)])
    assert len(rows) == pair.images.token_count(meta)


def test_images_of_a_batch_do_not_touch_one_another(pair: Pair) -> None:
    """More tiles than run at once, cut elsewhere than between images."""
    pictures = [picture(30 + 25 * number, 90, seed=number) for number in range(5)]
    inputs = pair.preprocess(pictures)
    together = pair.encoder.encode(inputs)
    for one, found in zip(inputs, together, strict=True):
        np.testing.assert_allclose(found, pair.encoder.encode([one])[0], atol=1e-5, rtol=0)
