"""Orders: which of two waiting requests goes first, and why."""

from dataclasses import replace
from functools import partial

import pytest

from headrace.core.lengths import Prediction
from headrace.core.ordering import ORDERS, Standing
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
