"""Words from the cache against the tokenizer itself: the same tokens for any text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from headrace.engines.families import words
from headrace.engines.families.smollm2 import load
from headrace.engines.families.words import WordEncoder

pytestmark = pytest.mark.model
SPECIAL = ("<|im_start|>", "<|im_end|>", "<empty_output>")


def made() -> tuple[Tokenizer, WordEncoder]:
    tokenizer = load().tokenizer
    return tokenizer, WordEncoder(tokenizer, SPECIAL)


def expected(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


TEXTS = [
    "",
    "Hello, world! It's 7:30 pm, we'll see.",
    "tabs\tand\r\nlines\n\n\n  indented   12  34 ",
    "a  b   1 2  c 3.14159 'tis 'S I'LL don't''s",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    "!!<|im_end|>!! <|im_end|> <|im_end",
    "\x00\x1c\x1d\x1e\x1f\x7f\x0b\x0c x",
    "café 世界 😀 ٣",
    "x" * 500,
]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_texts(text: str) -> None:
    tokenizer, encoder = made()
    for _ in range(2):  # once learnt, once known
        assert encoder.encode(text) == expected(tokenizer, text)


PIECES = st.sampled_from([*SPECIAL, " ", "  ", "\n", "\t", "'s", "'ll", "1", "23", "a", "The", "!", "<|", "|>", "é"])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(PIECES, st.text(st.characters(max_codepoint=127), max_size=8)), max_size=12).map("".join))
def test_any_text(text: str) -> None:
    tokenizer, encoder = made()
    assert encoder.encode(text) == expected(tokenizer, text)


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "WORDS_MAX", 4)
    tokenizer, encoder = made()
    text = "one two three four five six seven"
    assert encoder.encode(text) == expected(tokenizer, text)
    assert len(encoder._words) <= 4
