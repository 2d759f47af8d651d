"""Which request keeps a promise, which breaks it, and which says nothing about it."""

import pytest

from headrace.core.errors import HeadraceError, InvalidInput, Overloaded, RateLimited, TooLate, Unavailable
from headrace.core.slo import BUILT_IN
from headrace.core.types import End, FinishReason
from services.gateway.figures import Histogram
from services.gateway.live import Facts, Live
from services.gateway.objectives import AVAILABLE, TTFT, Objectives

TRACED = f"00-{'ab' * 16}-{'cd' * 8}-01"


def live_of(*, slo_class: str = "interactive", own_s: float = 0.0, received_s: float = 1.0) -> Live:
    facts = Facts("r", "t", "m", b"", (), 1, 0, slo_class, ttft_s=own_s)
    return Live(facts, opened_s=0.0, received_s=received_s)


@pytest.mark.parametrize(
    ("first_s", "own_s", "reason", "ttft", "available"),
    [
        (1.0, 0.0, "stop", (1, 0), (1, 0)),
        (21.0, 0.0, "length", (1, 1), (1, 0)),  # the class promises 20 s
        (21.0, 30.0, "stop", (1, 0), (1, 0)),  # it asked for 30
        (1.0, 0.5, "stop", (1, 1), (1, 0)),
        (1.0, 0.0, "error", (1, 0), (1, 1)),
        (None, 0.0, "error", (1, 1), (1, 1)),  # no first token will come
        (None, 0.0, "deadline", (1, 1), (1, 1)),
        (None, 0.0, "cancelled", (0, 0), (0, 0)),  # its client's own wish
        (1.0, 0.0, "cancelled", (1, 0), (0, 0)),
    ],
)
def test_what_each_end_counts_for(
    first_s: float | None,
    own_s: float,
    reason: FinishReason,
    ttft: tuple[int, int],
    available: tuple[int, int],
) -> None:
    kept = Objectives(BUILT_IN)
    live = live_of(own_s=own_s)
    if first_s is not None:
        live.first_token_s = first_s
        kept.first_token(live, first_s)
    live.stream.end = End(reason)
    kept.ended(live)
    assert counts(kept, TTFT) == ttft
    assert counts(kept, AVAILABLE) == available


@pytest.mark.parametrize(
    ("error", "missed"),
    [
        (Overloaded("full"), 1),
        (TooLate("could not begin"), 1),
        (Unavailable("no worker"), 1),
        (RateLimited("beyond its key's limit"), 0),
        (InvalidInput("what?"), 0),
    ],
)
def test_a_refusal_counts_where_the_mesh_is_to_blame(error: HeadraceError, missed: int) -> None:
    kept = Objectives(BUILT_IN)
    with pytest.raises(type(error)), kept.admitting("interactive"):
        raise error
    assert counts(kept, AVAILABLE) == (missed, missed)


@pytest.mark.parametrize("live", [live_of(received_s=0.0), live_of(slo_class="of another gateway's file")])
def test_what_others_count_is_not_counted_twice(live: Live) -> None:
    kept = Objectives(BUILT_IN)
    live.stream.end = End("error")
    kept.ended(live)
    assert sum(kept.judged.values()) == 0


def test_every_class_is_there_from_the_beginning() -> None:
    judged, missed = Objectives(BUILT_IN).families()
    assert {sample.value for sample in (*judged.samples, *missed.samples)} == {0}
    assert len(judged.samples) == len(missed.samples) == 2 * len(BUILT_IN.named)


def test_a_bucket_remembers_its_newest_traced_request() -> None:
    histogram = Histogram((1.0, 2.0))
    for n, (value, traceparent) in enumerate(((0.5, ""), (1.5, TRACED), (1.7, TRACED), (1.9, ""), (9.0, TRACED))):
        histogram.observe(value, Facts(f"r{n}", "t", "m", b"", (), 1, 0, traceparent=traceparent))
    assert [bucket[:2] for bucket in histogram.buckets()] == [("1.0", 1.0), ("2.0", 4.0), ("+Inf", 5.0)]
    kept = [(bucket[2].labels, bucket[2].value) for bucket in histogram.buckets() if len(bucket) == 3]
    assert kept == [
        ({"trace_id": "ab" * 16, "request_id": "r2"}, 1.7),
        ({"trace_id": "ab" * 16, "request_id": "r4"}, 9.0),
    ]


def counts(kept: Objectives, objective: str) -> tuple[int, int]:
    pair = ("interactive", objective)
    return kept.judged[pair], kept.missed[pair]
