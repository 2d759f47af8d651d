"""Tokens to text: characters of several tokens, stop strings across tokens, and the same text wherever one attaches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.text import TextStream

BYTES = [bytes([byte]) for byte in range(256)]


def shown(text: bytes, stop: tuple[str, ...] = ()) -> list[str]:
    stream = TextStream(BYTES, stop)
    return [*[stream.feed(byte) for byte in text], stream.finish()]


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("ab", (), ["a", "b", ""]),
        ("é", (), ["", "é", ""]),
        ("a END b", (" END",), ["a", "", "", "", "", "", "", ""]),
        ("a ENd", (" END",), ["a", "", "", "", " ENd", ""]),
        ("a EN", (" END",), ["a", "", "", "", " EN"]),
        ("xxy", ("xy",), ["", "x", "", ""]),
        ("abc", ("b", "a"), ["", "", "", ""]),
    ],
)
def test_shown(text: str, stop: tuple[str, ...], expected: list[str]) -> None:
    assert shown(text.encode(), stop) == expected


def test_bytes_that_are_no_text_end_as_replacement() -> None:
    assert shown("é".encode()[:1]) == ["", "�"]


def test_a_token_beyond_the_vocabulary_shows_nothing() -> None:
    assert TextStream([b"a"]).feed(7) == ""


@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=4), max_size=3))
def test_all_before_the_first_stop_string(text: str, stop: list[str]) -> None:
    found = [at for at in map(text.find, stop) if at >= 0]
    # A stop string is met when it is complete: among several, the one whose end comes first.
    joined = "".join(shown(text.encode(), tuple(stop)))
    if not found:
        assert joined == text
    else:
        assert text.startswith(joined)
        assert not any(each in joined for each in stop)
