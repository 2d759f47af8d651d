"""Tiles and media tokens of the six multimodal models, as ModServe's Table 1 and the models' own code have them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.profiles import model, packaged

TABLE_1 = [  # tiles of the tower, media tokens, of 896 x 896 pixels [P]
    ("llama-3.2-11b-vision", 4, 6404),
    ("llama-3.2-90b-vision", 4, 6404),
    ("llava-onevision-7b", 10, 7290),
    ("llava-onevision-72b", 10, 7290),
    ("internvl-2.5-26b", 5, 1280),
    ("nvlm-d-72b", 5, 1280),
]
MULTIMODAL = [name for name, _, _ in TABLE_1]


@pytest.mark.parametrize(("name", "tiles", "tokens"), TABLE_1)
def test_table_1(name: str, tiles: int, tokens: int) -> None:
    card = model(name)
    assert (card.tiles(896, 896), card.media_tokens(896, 896)) == (tiles, tokens)


@pytest.mark.parametrize(
    ("name", "width", "height", "tokens", "why"),
    [
        ("llama-3.2-11b-vision", 500, 375, 1601, "fits into one tile"),
        ("llama-3.2-11b-vision", 1000, 300, 2 * 1601, "two beside each other"),
        ("llama-3.2-11b-vision", 300, 1700, 4 * 1601, "four above one another shrink it least"),
        ("llama-3.2-11b-vision", 4000, 3000, 4 * 1601, "as much as there is"),
        ("llava-onevision-7b", 384, 384, 2 * 729, "one tile, and the overview all the same"),
        ("llava-onevision-7b", 700, 700, 5 * 729, "2 x 2 and the overview"),
        ("llava-onevision-7b", 2300, 2300, 10 * 729, "6 x 6, pooled to the tokens of nine"),
        ("internvl-2.5-26b", 448, 448, 256, "one tile needs no overview"),
        ("internvl-2.5-26b", 500, 375, 13 * 256, "4 x 3 is the ratio itself"),
        ("internvl-2.5-26b", 200, 200, 256, "too small for 2 x 2 of the same ratio"),
        ("nvlm-d-72b", 500, 375, 7 * 256, "3 x 2 is nearest to 4:3 among six"),
    ],
)
def test_other_sizes(name: str, width: int, height: int, tokens: int, why: str) -> None:
    assert model(name).media_tokens(width, height) == tokens, why


def test_the_tower_may_compute_more_than_the_llm_sees() -> None:
    assert model("llama-3.2-11b-vision").tiles(100, 100) == 4, "always four, most of them empty"
    assert model("llava-onevision-7b").tiles(2300, 2300) == 37


@pytest.mark.parametrize("name", MULTIMODAL)
@given(width=st.integers(1, 10_000), height=st.integers(1, 10_000))
def test_any_size(name: str, width: int, height: int) -> None:
    card = model(name)
    assert card.tiling is not None
    tiles, tokens = card.tiles(width, height), card.media_tokens(width, height)
    limit = card.tiling.tiles_max + card.tiling.overview
    assert 1 <= tiles <= limit
    assert tokens % card.tiling.tokens_per_tile == 0
    assert 1 <= tokens // card.tiling.tokens_per_tile <= tiles
    if card.tiling.fit != "ratio":  # which compares 1/5 and 1/6 otherwise than 5 and 6
        assert card.tiles(height, width) == tiles, "a photo turned on its side costs the same"


def test_cards_name_what_is_there() -> None:
    for name in packaged("models"):
        card = model(name)
        assert card.llm in packaged("a100") + packaged("h100")
        assert not card.encoder or card.encoder in packaged("a100")
        assert card.source.startswith("[")
    assert model("llama-3.2-11b-vision").contract == "cross"
    assert model("internvl-2.5-26b").contract == "decoder"
    with pytest.raises(AssertionError, match="takes no images"):
        model("mistral-7b").tiles(10, 10)
