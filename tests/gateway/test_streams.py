"""The registry: who is woken, what is asked for and when, what is remembered."""

import asyncio

import pytest

from headrace.core.errors import Cancelled, HeadraceError, Overloaded
from headrace.core.types import End
from services.gateway import streams as streams_module
from services.gateway.live import Facts, Live
from services.gateway.streams import REMEMBER_S, Repairs, Streams

STOP = End("stop")


def make() -> Streams:
    return Streams(lambda live, now_s: None, lambda live, now_s: None)


def facts(name: str = "r") -> Facts:
    return Facts(name, "t", "m", b"", (), 3, 0)


def asked(repairs: Repairs) -> str:
    parts = (("stalled", repairs.stalled), ("cancel", repairs.cancel), ("attach", repairs.attach))
    return " ".join(f"{name}:{live.facts.id}" for name, lives in parts for live in lives)


def token(streams: Streams, name: str, index: int, now_s: float, attempt: int = 1) -> None:
    streams.tokens([name], [attempt], [index], [index + 100], now_s)


def test_one_batch_feeds_many_streams() -> None:
    streams = make()
    a, b = streams.open(facts("a"), 0.0), streams.open(facts("b"), 0.0)
    streams.tokens(["a", "b", "gone", "a"], [1, 1, 1, 1], [0, 0, 0, 1], [1, 2, 3, 4], 0.0)
    assert (a.stream.tokens, b.stream.tokens) == ([1, 4], [2])


def test_a_queued_request_is_asked_for_ever_more_slowly() -> None:
    streams = make()
    streams.open(facts(), 0.0)
    times = [tick / 4 for tick in range(60) if streams.sweep(tick / 4).stalled]
    assert times == [1.0, 2.0, 4.0, 8.0, 12.0]


def test_a_silent_stream_is_asked_for_every_half_second_until_it_speaks() -> None:
    streams = make()
    streams.open(facts(), 0.0)
    token(streams, "r", 0, 0.1)
    times = [tick / 10 for tick in range(30) if streams.sweep(tick / 10).stalled]
    assert times == [1.1, 1.6, 2.1, 2.6]
    token(streams, "r", 1, 3.0)
    assert asked(streams.sweep(3.9)) == ""
    assert asked(streams.sweep(4.1)) == "stalled:r"


def test_an_adopted_stream_repeats_its_attach_until_it_hears_something() -> None:
    streams = make()
    streams.open(facts(), 0.0, adopting=True)
    assert asked(streams.sweep(1.1)) == "attach:r"
    token(streams, "r", 0, 1.2)
    assert asked(streams.sweep(2.3)) == "stalled:r"


def test_a_cancel_is_repeated_until_the_end() -> None:
    streams = make()
    live = streams.open(facts(), 0.0)
    streams.cancel(live, 0.1)
    assert "cancel:r" in asked(streams.sweep(0.7))
    assert "cancel:r" in asked(streams.sweep(1.3))
    streams.end("r", 0, 0, End("cancelled"), 1.4)
    assert asked(streams.sweep(2.0)) == ""


def test_a_cancel_that_nobody_answers_is_given_up() -> None:
    streams = make()
    streams.cancel(streams.open(facts(), 0.0), 0.0)
    for second in range(1, 40):
        streams.sweep(float(second))
    assert len(streams) == 0


def test_an_ended_stream_is_remembered_for_a_while() -> None:
    """A worker that died right after its last message: the queue manager asks what the client has seen."""
    streams = make()
    streams.open(facts(), 0.0)
    token(streams, "r", 0, 1.0)
    streams.end("r", 1, 1, STOP, 1.0)
    live = streams.fence("r", 2)
    assert live is not None
    assert (live.stream.tokens, live.end) == ([100], STOP)
    streams.sweep(1.0 + REMEMBER_S)
    assert streams.get("r") is None


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "REMEMBERED_MAX", 2)
    streams = make()
    for name in "abcd":
        streams.open(facts(name), 0.0)
        streams.end(name, 1, 0, STOP, 0.0)
    streams.sweep(0.1)
    assert [name for name in "abcd" if streams.get(name)] == ["c", "d"]


def test_open_streams_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "LIVE_MAX", 1)
    streams = make()
    streams.open(facts("a"), 0.0)
    with pytest.raises(Overloaded):
        streams.open(facts("b"), 0.0)


async def read(streams: Streams, live: Live, whole: bool = False) -> tuple[list[int], str]:
    """What a listener gets from now on, and how it ends."""
    listener, got = streams.listen(live, 0.0, whole), list[int]()
    while True:
        try:
            await listener.news()
        except HeadraceError as error:
            return got, type(error).__name__
        got += listener.take()
        if live.end is not None:
            return got, live.end.reason


async def test_listeners_each_read_all_at_their_own_pace() -> None:
    streams = make()
    live = streams.open(facts(), 0.0)
    early = asyncio.create_task(read(streams, live))
    whole = asyncio.create_task(read(streams, live, whole=True))
    await asyncio.sleep(0)
    token(streams, "r", 0, 0.0)
    await asyncio.sleep(0)
    late = asyncio.create_task(read(streams, live))
    token(streams, "r", 1, 0.0)
    streams.end("r", 1, 2, STOP, 0.0)
    async with asyncio.timeout(5):
        results = await asyncio.gather(early, whole, late)
    assert list(results) == [([100, 101], "stop")] * 3


async def test_a_stream_taken_over_ends_here() -> None:
    streams = make()
    live = streams.open(facts(), 0.0)
    reader = asyncio.create_task(read(streams, live))
    await asyncio.sleep(0)
    streams.moved("r")
    async with asyncio.timeout(5):
        assert await reader == ([], Cancelled.__name__)
    assert len(streams) == 0


def test_the_last_listener_to_leave_is_told() -> None:
    streams = make()
    live = streams.open(facts(), 0.0)
    one, two = streams.listen(live, 0.0), streams.listen(live, 0.0)
    assert not streams.unlisten(one)
    assert streams.unlisten(two)
