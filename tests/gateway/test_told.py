"""Entries of tokens in step with their text: every token once, in order, cut where the text is cut."""

import codecs
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.types import TokenLogprobs
from services.gateway import bodies
from services.gateway.render import Chunks
from services.gateway.stream import Stream
from services.gateway.text import TextStream
from services.gateway.told import ToldText

PIECES = [b"a", b"b", b"ab", b"ba", b" ", b"\xc3", b"\xa9", "é".encode(), "日本".encode(), b"\xe6\x97", b"\xa5", b""]
EOS = len(PIECES) - 1


def names(token: int) -> tuple[str, list[int] | None]:
    piece = PIECES[token]
    return (piece.decode("utf-8", "replace"), list(piece)) if piece else ("<eos>", None)


def told_text(tokens: Sequence[int], stop: Sequence[str]) -> ToldText:
    stream = Stream()
    for index, token in enumerate(tokens):
        stream.tell(1, index, TokenLogprobs(-float(index), ((token, -float(index)),)))
        stream.accept(1, index, token)
    return ToldText(TextStream(PIECES, stop), names, stream, frozenset({EOS}))


def text_of(tokens: Sequence[int], *, final: bool) -> str:
    return codecs.getincrementaldecoder("utf-8")("replace").decode(b"".join(PIECES[t] for t in tokens), final)


@settings(max_examples=300, deadline=None)
@given(
    tokens=st.lists(st.integers(0, len(PIECES) - 2), max_size=24),
    stop=st.lists(st.sampled_from(["ab", "é", "本", "b a", "aba"]), max_size=3),
    ends=st.booleans(),
)
def test_entries_are_cut_where_the_text_is(tokens: list[int], stop: list[str], ends: bool) -> None:
    tokens = [*tokens, EOS] if ends else tokens
    told, text = told_text(tokens, stop), TextStream(PIECES, stop)
    answer = told.whole(tokens, "stop" if ends else "length")
    shown = "".join([text.feed(token) for token in tokens]) + text.finish()
    assert answer.text == shown
    count = len(answer.logprobs)
    assert [one.logprob for one in answer.logprobs] == [-float(index) for index in range(count)], "each once, in order"
    if text.stopped:
        begun = [index for index in range(len(tokens)) if len(text_of(tokens[:index], final=False)) < len(shown)]
        assert count == len(begun), "those whose text begins before the cut"
    else:
        assert count == len(tokens) - ends, "all but the end-of-sequence token"


@given(
    tokens=st.lists(st.integers(0, len(PIECES) - 2), max_size=16),
    stop=st.lists(st.sampled_from(["ab", "é", "本"]), max_size=2),
)
@settings(max_examples=100, deadline=None)
def test_no_event_tells_more_than_its_text(tokens: list[int], stop: list[str]) -> None:
    """What has been told never runs ahead of what has been shown, and at the end nothing is left out."""
    told, shown, count = told_text(tokens, stop), "", 0
    for token in tokens:
        shown += told.feed(token)
        count += len(told._entries)
        assert count == 0 or len(text_of(tokens[: count - 1], final=False)) < len(shown)
    count += len(told.finish("length").logprobs)
    assert count == len(told_text(tokens, stop).whole(tokens, "length").logprobs)


@pytest.mark.parametrize(
    ("tokens", "stop", "text", "entries", "why"),
    [
        ([0, 1, 0], ("ba",), "a", 1, "a stop string over two tokens takes both along"),
        ([2, 0], ("b",), "a", 1, "a token that is shown in part is told of"),
        ([0, 5, 6, 1], ("é",), "a", 1, "a character over two tokens that is a stop string"),
        ([0, 5, 6, 1], ("b", "éb"), "a", 1, "the earliest of several"),
        ([0, 5], (), "a\ufffd", 2, "half a character is shown as what it is"),
        ([0, EOS], (), "a", 1, "the end of sequence is no content"),
    ],
)
def test_a_cut(tokens: list[int], stop: tuple[str, ...], text: str, entries: int, why: str) -> None:
    answer = told_text(tokens, stop).whole(tokens, "stop")
    assert (answer.text, len(answer.logprobs)) == (text, entries), why


def test_an_end_of_sequence_that_did_not_end_it_is_told_of() -> None:
    """ignore_eos: it stands in the middle, and at the end of an answer that was long enough."""
    answer = told_text([0, EOS, 1, EOS], ()).whole([0, EOS, 1, EOS], "length")
    assert [(one.token, one.bytes) for one in answer.logprobs] == [
        ("a", [97]),
        ("<eos>", None),
        ("b", [98]),
        ("<eos>", None),
    ]


def test_what_nobody_knows_is_null() -> None:
    stream = Stream()
    stream.accept(1, 0, 0)
    (one,) = ToldText(TextStream(PIECES), names, stream, frozenset()).whole([0], "length").logprobs
    assert one == bodies.TokenLogprob("a", None, [97], [])


def test_an_event_has_the_shape_of_every_other() -> None:
    chunks = Chunks("id", "model", 1, include_usage=False)
    plain, told = chunks.token("x", first=True), chunks.told_token("x", [], first=True)
    assert told.replace(b'{"content":[],"refusal":null}', b"null") == plain
