"""Streams as transcripts: what comes off the bus, and the tokens a reader has afterwards."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.types import End, TokenLogprobs, Usage
from services.gateway.stream import HELD_BACK_MAX, Stream

STOP, LENGTH = End("stop"), End("length")

# step: "attempt:index=token", "attempt end count", "fence attempt"; expected: tokens, then "end" once ended
TRANSCRIPTS = {
    "in order": ("1:0=a 1:1=b 1.end.2", "ab end"),
    "a duplicate is dropped": ("1:0=a 1:0=a 1:1=b", "ab"),
    "a gap holds back": ("1:0=a 1:2=c", "a"),
    "a filled gap lets go": ("1:0=a 1:2=c 1:3=d 1:1=b", "abcd"),
    "an end waits for its tokens": ("1:0=a 1.end.3 1:2=c", "a"),
    "an end comes with the last token": ("1:0=a 1.end.3 1:2=c 1:1=b", "abc end"),
    "nothing after the end": ("1:0=a 1.end.1 1:1=x 2:1=y", "a end"),
    "an older attempt is not heard": ("2:0=a 1:1=x 2:1=b", "ab"),
    "a newer attempt continues": ("1:0=a 2:1=b 2:2=c", "abc"),
    "a newer attempt repeats nothing": ("1:0=a 1:1=b 2:0=a 2:1=b 2:2=c", "abc"),
    "what an older attempt held back is dropped": ("1:0=a 1:2=x 2:1=b", "ab"),
    "an end of an older attempt is dropped with it": ("1:0=a 1.end.2 2:1=b", "ab"),
    "a fence shuts out the old attempt": ("1:0=a fence.2 1:1=x", "a"),
    "a fence drops an end that was not complete": ("1:0=a 1.end.2 fence.2 1:1=b", "a"),
    "a fence after the end changes nothing": ("1:0=a 1.end.1 fence.2", "a end"),
    "the end of no tokens": ("1.end.0", " end"),
}


def play(steps: str) -> Stream:
    stream = Stream()
    for step in steps.split():
        if step.startswith("fence."):
            stream.fence(int(step[6:]))
        elif ".end." in step:
            attempt, count = step.split(".end.")
            stream.accept_end(int(attempt), int(count), STOP)
        else:
            place, token = step.split("=")
            attempt, index = place.split(":")
            stream.accept(int(attempt), int(index), ord(token))
    return stream


def shown(stream: Stream) -> str:
    return "".join(map(chr, stream.tokens)) + (" end" if stream.end else "")


@pytest.mark.parametrize(("steps", "expected"), TRANSCRIPTS.values(), ids=TRANSCRIPTS.keys())
def test_transcript(steps: str, expected: str) -> None:
    assert shown(play(steps)) == expected


def test_a_gap_is_known_until_it_is_filled() -> None:
    assert not play("1:0=a").has_gap
    assert play("1:0=a 1:2=c").has_gap
    assert play("1:0=a 1.end.2").has_gap
    assert not play("1:0=a 1.end.2 1:1=b").has_gap


def test_results_settle_whatever_was_missed() -> None:
    stream = play("1:0=a 1:2=c")
    assert stream.settle([97, 98, 99], LENGTH)
    assert (shown(stream), stream.end) == ("abc end", LENGTH)
    assert not stream.settle([97], STOP)


def test_what_is_held_back_is_bounded() -> None:
    stream = Stream()
    for index in range(1, HELD_BACK_MAX + 100):
        stream.accept(1, index, index)
    stream.accept(1, 0, 0)
    assert stream.tokens == list(range(HELD_BACK_MAX + 1))


@given(
    tokens=st.lists(st.integers(0, 50_000), max_size=40),
    deaths=st.lists(st.integers(0, 40), max_size=3),
    seed=st.integers(0, 2**32),
)
def test_exactly_the_tokens_in_order(tokens: list[int], deaths: list[int], seed: int) -> None:
    """Every attempt may start anew anywhere, its messages may be lost, repeated and reordered; asking fills gaps."""
    rng = random.Random(seed)
    stream, end = Stream(), End("stop", usage=Usage(completion_tokens=len(tokens)))
    for attempt, reach in enumerate([*sorted(deaths), len(tokens)], 1):
        stream.fence(attempt)
        messages = list(range(min(stream.next_index, reach), min(reach, len(tokens))))
        messages = [m for m in messages if rng.random() > 0.2] * rng.randint(1, 2)
        rng.shuffle(messages)
        for index in messages:
            stream.accept(attempt, index, tokens[index])
            assert stream.tokens == tokens[: stream.next_index]
        late = rng.randint(0, len(tokens)) if tokens else 0
        stream.accept(attempt - 1, late, -1)
    final = len(deaths) + 1
    stream.accept_end(final, len(tokens), end)
    while stream.end is None:
        assert stream.has_gap
        stream.accept(final, stream.next_index, tokens[stream.next_index])
    assert (stream.tokens, stream.end) == (tokens, end)


def told(value: float) -> TokenLogprobs:
    return TokenLogprobs(value, ((7, value),))


def test_logprobs_come_with_their_tokens_and_are_never_changed() -> None:
    stream = Stream()
    for index, token in enumerate([5, 6]):
        stream.tell(1, index, told(-index))
        stream.accept(1, index, token)
    stream.tell(1, 1, told(-9.0))  # a resend
    assert stream.logprobs == {0: told(0), 1: told(-1)}


def test_logprobs_of_tokens_held_back_go_with_a_newer_attempt() -> None:
    """Index 2 came beyond a gap; the next attempt draws it again, and may draw another token."""
    stream = Stream()
    stream.accept(1, 0, 5)
    stream.tell(1, 2, told(-2.0))
    stream.accept(1, 2, 9)
    stream.fence(2)
    stream.tell(1, 1, told(-1.0))  # the old attempt is not heard any more
    assert stream.logprobs == {}
    stream.tell(2, 2, told(-3.0))
    assert stream.logprobs == {2: told(-3.0)}


def test_results_tell_what_was_missed() -> None:
    stream = Stream()
    stream.tell(1, 1, told(-5.0))
    stream.accept(1, 1, 9)  # beyond a gap
    assert stream.settle([5, 6], End("stop"), ((0, told(-0.5)), (1, told(-1.5))))
    assert stream.logprobs == {0: told(-0.5), 1: told(-1.5)}
