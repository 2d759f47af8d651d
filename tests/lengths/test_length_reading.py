"""Prompts become the encoder's tokens and the heads' numbers: exactly, within bounds, whatever the text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.lengths import Features
from headrace.predictor.cues import CUES, cues, requested_tokens
from headrace.predictor.numbers import NUMBERS, model_index, numbers
from headrace.predictor.reading import Reader, padded

KNOWN = [
    ("Hello world!", [101, 7592, 2088, 999, 102]),  # as transformers' BertTokenizer has it
    ("Étude", [101, 3802, 12672, 102]),
    ("", [101, 102]),
]


@pytest.mark.parametrize(("text", "ids"), KNOWN)
def test_tokens_are_berts(text: str, ids: list[int]) -> None:
    assert Reader().read([text]) == [ids]


def test_the_middle_of_a_long_prompt_is_left_out() -> None:
    words = [f"{i % 10}" for i in range(2_000)]
    ids = Reader().read([" ".join([*words, "end"])])[0]
    assert len(ids) == 512
    whole = Reader().read([" ".join(words[:127])])[0]
    assert ids[:128] == whole[:128]
    assert ids[-2] == Reader().read(["end"])[0][1]
    assert len(Reader(8, 8).read(["a " * 100])[0]) == 16


@pytest.mark.parametrize(("head", "tail"), [(1, 100), (100, 1), (256, 257)])
def test_a_cut_that_the_encoder_cannot_take_is_refused(head: int, tail: int) -> None:
    with pytest.raises(ValueError, match="head and tail"):
        Reader(head, tail)


def test_padding_is_masked() -> None:
    ids, mask = padded([[1, 2, 3], [4]])
    assert ids.tolist() == [[1, 2, 3], [4, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    ("text", "cue", "value"),
    [
        ("In one word: which colour?", "one_word", 1),
        ("Answer yes or no.", "one_word", 1),
        ("Write a Python function", "language", 1),
        ("Write a C++ program", "language", 1),
        ("pythonic habits", "language", 0),  # words of their own alone
        ("Write a haiku about the sea", "verse", 1),
        ("list list list list list", "list", 3),  # at most three times
        ("Could you please explain tides?", "opens_could", 1),
        ("Explain tides", "opens_explain", 1),
        ("The tides: explain them", "opens_explain", 1),
        ("Tides are what the moon makes; explain", "opens_explain", 0),  # too late
        ("What is it?", "ends_with_question", 1),
        ("", "log_characters", 0),
    ],
)
def test_cues(text: str, cue: str, value: float) -> None:
    assert dict(zip(CUES, cues(text), strict=True))[cue] == value


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a 100-word essay", 135),
        ("in two paragraphs of 50 words", 67.5),
        ("3 pages or 10 lines", 1800),
        ("nothing", 0),
        ("99999 characters", 24999.75),
    ],
)
def test_requested_lengths(text: str, tokens: float) -> None:
    assert requested_tokens(text) == pytest.approx(tokens)


@settings(max_examples=50)
@given(st.text(max_size=300), st.integers(0, 16), st.integers(0, 10_000))
def test_any_text_gives_finite_numbers(text: str, images: int, media_tokens: int) -> None:
    found = numbers(text, Features(0, 1, parts=(("image", images), ("smell", 2)), media_tokens=media_tokens))
    assert len(found) == len(NUMBERS)
    assert all(-1 < value < 100 for value in found)
    assert Reader().read([text])[0][0] == 101


def test_a_megabyte_of_prompt_is_not_read() -> None:
    huge = "word " * 200_000
    assert len(Reader().read([huge])[0]) == 512
    assert cues(huge)[0] == pytest.approx(13.8, abs=0.1)


def test_unknown_models_share_a_place() -> None:
    assert [model_index(name, {"a": 1, "b": 2}) for name in ("a", "b", "c", "")] == [1, 2, 0, 0]
