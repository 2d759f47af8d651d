"""Routing that looks at no load, and requests whose stages stay at one worker: what the mesh's own is compared with."""

from dataclasses import replace
from typing import Any

import pytest

from headrace.core import effects as fx
from headrace.core import events as ev
from headrace.core.queue import QueueConfig, QueueCore
from headrace.core.stages.routing import blindly
from headrace.core.types import Key, TensorHandle
from tests.core.queue_worker import MODEL
from tests.core.queue_world import make_request

NOW_S = 1000.0


class Told:
    """A core with workers that have been heard, and where it sends what."""

    def __init__(self, *workers: ev.Heartbeat, **config: Any) -> None:
        self.core = QueueCore(QueueConfig(epoch=1, **config))
        self.count = 0
        self.core.handle(ev.CaughtUp(), NOW_S)
        for worker in workers:
            self.core.handle(worker, NOW_S)
        self.core.handle(ev.Tick(), NOW_S + 1.5)  # what workers held before is known by now

    def ask(self, images: int = 0) -> str:
        self.count += 1
        return self.after(ev.RequestAccepted(make_request(self.count, NOW_S, images=images), self.count))

    def encoded(self, worker: str, number: int, part: int) -> str:
        handle = TensorHandle("x", worker, "", "", "h", "", "f4", (1,), "", 4, 0, 1)
        return self.after(ev.PartEncoded(worker, Key(f"{number:032x}", 4097), part, handle))

    def after(self, event: ev.Event) -> str:
        """The workers that are sent something, in that order."""
        effects = self.core.handle(event, NOW_S + 2.0)
        self.core.check()
        return " ".join(each.worker for each in effects if isinstance(each, fx.SendEncode | fx.SendPrefill))


def encoder(name: str) -> ev.Heartbeat:
    return ev.Heartbeat(name, f"{name}-1", ("encode",), MODEL, modalities=("image",))


def llm(name: str, *stages: Any, draining: bool = False) -> ev.Heartbeat:
    every = (*stages, "prefill", "decode")
    beat = ev.Heartbeat(name, f"{name}-1", every, MODEL, modalities=("image",), draining=draining)
    return replace(beat, slots=64, blocks=4096, block_tokens=16)


WHOLE = (llm("a", "encode"), llm("b", "encode"), llm("c", "encode"))


@pytest.mark.parametrize(
    ("routing", "turn", "name", "chosen"),
    [
        ("round-robin", 0, "x", "a"),
        ("round-robin", 4, "x", "b"),
        ("random", 0, "x", blindly("abc", "random", 7, "x")),  # whatever the turn
    ],
)
def test_by_turn_or_by_name(routing: Any, turn: int, name: str, chosen: str) -> None:
    assert blindly("abc", routing, turn, name) == chosen
    assert blindly("", routing, turn, name) is None


def test_at_random_everybody_gets_about_as_much() -> None:
    chosen = [blindly("abcd", "random", 0, f"{number:032x}/0") for number in range(4_000)]
    assert all(abs(chosen.count(each) - 1_000) < 150 for each in "abcd")


def test_parts_and_requests_go_in_turn_whatever_waits_there() -> None:
    told = Told(encoder("e1"), encoder("e2"), encoder("e3"), llm("p"), llm("q"), routing="round-robin")
    assert [told.ask(images=images) for images in (2, 1, 3)] == ["e1 e2", "e3", "e1 e2 e3"]
    assert [told.ask() for _ in range(3)] == ["p", "q", "p"]


def test_by_turn_who_has_no_room_is_passed_over() -> None:
    told = Told(encoder("e1"), encoder("e2"), llm("p"), routing="round-robin", encoder_window_tokens=16)
    assert told.ask(images=1) == "e1"
    assert told.ask(images=2) == "e2"  # a part waits
    assert told.encoded("e1", 1, 0) == "p"  # and goes on waiting: the embedding is kept there


@pytest.mark.parametrize("routing", ["least-pending", "round-robin"])
def test_together_a_request_stays_where_it_began(routing: str) -> None:
    told = Told(*WHOLE, routing=routing, together=True)
    assert told.ask(images=3) == "a a a"
    assert told.ask() == "b"
    assert told.ask(images=1) == "c"
    assert [told.encoded("a", 1, part) for part in range(3)] == ["", "", "a"]


def test_together_a_request_larger_than_the_window_stays_whole() -> None:
    """Its embeddings are kept until prefill has all of them: a window that held some back would never open."""
    told = Told(*WHOLE, together=True, encoder_window_tokens=20)
    assert told.ask(images=4) == "a a a a"


def test_together_media_and_prompts_that_wait_count_alike() -> None:
    told = Told(*WHOLE, together=True)
    assert [told.ask(images=2), told.ask(images=1), told.ask(), told.ask()] == ["a a", "b", "c", "c"]


def test_together_a_worker_that_leaves_hands_its_request_on() -> None:
    told = Told(*WHOLE, together=True)
    told.ask(images=1)
    told.after(llm("a", "encode", draining=True))
    assert told.encoded("a", 1, 0) == "b"
