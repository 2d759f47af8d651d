"""Orders: which of two waiting requests goes first, and why."""

from dataclasses import replace
from functools import partial

import pytest

from headrace.core.lengths import Prediction
from headrace.core.ordering import ORDERS, Standing
from headrace.core.ordering.srpt import Begun, Preemption
from headrace.core.types import Request
from tests.core.queue_world import make_request


def waiting(number: int, accepted_s: float, prompt_tokens: int) -> Request:
    request = make_request(number, accepted_s)
    return replace(request, prompt=replace(request.prompt, tokens=tuple(range(prompt_tokens))))


@pytest.mark.parametrize(
    ("order", "first", "second", "why"),
    [
        ("fcfs", (1, 0.0, 900, 20.0), (2, 1.0, 10, 1.0), "the journal's order, whatever else"),
        ("edf", (2, 1.0, 900, 20.0), (1, 0.0, 10, 60.0), "due at 21 s, before 60 s"),
        ("edf", (1, 0.0, 900, 20.0), (2, 1.0, 10, 20.0), "of one class: who came first"),
        ("ssjf", (2, 5.0, 10, 20.0), (1, 0.0, 10, 20.0), "180 tokens less, five seconds later"),
        ("ssjf", (1, 0.0, 10, 20.0), (2, 19.0, 10, 20.0), "it has waited 19 s: worth 190 tokens"),
        ("srpt", (2, 5.0, 10, 20.0), (1, 0.0, 10, 20.0), "180 tokens less, five seconds later"),
        ("srpt", (1, 0.0, 10, 20.0), (2, 19.0, 10, 20.0), "it has waited 19 s: worth 190 tokens"),
        ("srpt", (2, 0.0, 10, 20.0), (1, 0.0, 10_000, 20.0), "nothing to prefill but ten tokens"),
        ("least-slack", (2, 1.0, 50_000, 20.0), (1, 0.0, 10, 20.0), "5 s of prefill: it must begin sooner"),
        ("shortest-prompt", (2, 0.5, 100, 20.0), (1, 0.0, 900, 20.0), "800 tokens less, half a second later"),
        ("shortest-prompt", (1, 0.0, 900, 20.0), (2, 1.0, 100, 20.0), "it has waited a second: worth 1,000 tokens"),
    ],
)
def test_who_goes_first(
    order: str, first: tuple[int, float, int, float], second: tuple[int, float, int, float], why: str
) -> None:
    """Each: journal sequence, accepted and ready at, prompt tokens, target of its class. The first will say 200 tokens,
    the second 20."""
    long = (200.0, 20.0)
    keys = [
        ORDERS[order].key(
            Standing(waiting(seq, at_s, tokens), seq, at_s, ttft_s, partial(Prediction.exactly, long[seq - 1]))
        )
        for seq, at_s, tokens, ttft_s in (first, second)
    ]
    assert keys[0] < keys[1], why


def test_srpt_goes_by_what_is_left() -> None:
    """An answer of 200 tokens, of which 190 are there, with its KV cache kept, before a new one of 20."""
    begun, new = (
        Standing(waiting(1, 0.0, 5_000), 1, 0.0, 20.0, partial(Prediction.exactly(200).given, 190)),
        Standing(waiting(2, 0.0, 10), 2, 0.0, 20.0, partial(Prediction.exactly, 20)),
    )
    assert ORDERS["srpt"].key(begun) < ORDERS["srpt"].key(new)
    assert ORDERS["ssjf"].key(begun) > ORDERS["ssjf"].key(new), "which counts its prompt again"


LONG, HALFWAY, OLD = Begun(900.0, 10), Begun(400.0, 300), Begun(300.0, 700)


@pytest.mark.parametrize(
    ("begun", "waiting_left", "victim", "why"),
    [
        ([LONG, HALFWAY], 50.0, 0, "the one with most to come"),
        ([HALFWAY, LONG], 50.0, 1, "wherever it stands"),
        ([HALFWAY, OLD], 50.0, 0, "350 tokens less"),
        ([HALFWAY, OLD], 320.0, None, "80 tokens less are not worth it"),
        ([OLD], 50.0, None, "70 % of it is done"),
        ([Begun(900.0, 10, preempted=1), HALFWAY], 50.0, 1, "the longest has been preempted once"),
        ([Begun(900.0, 10, preempted=1), OLD], 50.0, None, "nobody may be"),
        ([Begun(900.0, 0)], 50.0, 0, "nothing of it is there yet"),
        ([], 50.0, None, "nobody runs"),
    ],
)
def test_who_makes_room(begun: list[Begun], waiting_left: float, victim: int | None, why: str) -> None:
    assert Preemption().victim(begun, waiting_left) == victim, why


def test_nobody_makes_room_more_often_than_allowed() -> None:
    assert Preemption(times_most=0).victim([LONG], 1.0) is None
    assert Preemption(times_most=2).victim([Begun(900.0, 10, preempted=1)], 1.0) == 0
