"""What an autoscaler takes from workers' words: costs of an instance, and whose first token was in time."""

from typing import Any

import pytest

from headrace.core.governing import Speeds
from headrace.core.instance import Encoded, Pace
from headrace.core.queue.views import WorkerView
from headrace.core.scaling.base import Costs
from headrace.core.scaling.events import Answered
from headrace.core.scaling.pace import GUESS, EncodePace, costs_of, slowed
from headrace.core.scaling.promises import Promises


def worker(**changes: Any) -> WorkerView:
    plain: dict[str, Any] = dict.fromkeys(("host", "model"), "m") | {
        "worker": "w-0",
        "incarnation": "1",
        "stages": ("prefill", "decode"),
        "slots": 10,
        "slots_used": 0,
        "blocks": 10_000,
        "blocks_used": 0,
        "draining": False,
        "last_seen_s": 0.0,
        "lease_until_s": 0.0,
        "pending_media_tokens": 0,
        "block_tokens": 16,
        "pace": Pace(0.02, 0.001, 1e-4),
    }
    return WorkerView(**plain | changes)


def test_the_mean_instance_at_a_full_batch() -> None:
    fast, slow = worker(), worker(pace=Pace(0.04, 0.003, 3e-4))
    costs = costs_of([fast, slow], EncodePace(), GUESS)
    assert costs.prefill_token_s == pytest.approx(2e-4)
    assert costs.decode_token_s == pytest.approx((0.02 / 10 + 0.001 + 0.04 / 10 + 0.003) / 2)
    assert costs.encode_token_s == GUESS.encode_token_s, "nothing has been encoded"


def test_a_full_batch_is_what_the_kv_cache_holds() -> None:
    costs = costs_of([worker(blocks=128)], EncodePace(), GUESS)
    assert costs.decode_token_s == pytest.approx(0.02 / 2 + 0.001), "two sequences of 1,024 tokens"


def test_what_was_known_stays_while_nobody_is_there() -> None:
    before = Costs(0.1, 0.2, 0.3, 0.4)
    assert costs_of([], EncodePace(), before) == before
    assert costs_of([worker(pace=Pace())], EncodePace(), before) == before


def test_encoders_are_as_fast_as_they_were_lately() -> None:
    pace = EncodePace()
    assert pace.token_s == 0.0
    pace.observe("e-0", "1", Encoded(1.0, 100))
    pace.observe("e-1", "1", Encoded(1.0, 300))
    assert pace.token_s == pytest.approx(2 / 400, rel=0.02)
    pace.observe("e-0", "1", Encoded(1.0, 100))
    assert pace.token_s == pytest.approx(2 / 400, rel=0.02), "said again, it is no news"
    for second in range(1, 400):
        pace.observe("e-0", "2", Encoded(float(second), second * 50))
    assert pace.token_s == pytest.approx(1 / 50, rel=0.01), "a new incarnation counts anew, and old work is forgotten"


def test_each_promise_is_settled_once() -> None:
    promises = Promises()
    for name in ("early", "late", "cancelled", "never"):
        promises.accepted(name, 10.0)
    assert promises.first_token("early", 9.0) == [Answered(True)]
    assert promises.first_token("early", 11.0) == []
    assert promises.first_token("late", 11.0) == [Answered(False)]
    promises.gone("cancelled")
    assert promises.overdue(10.0) == []
    assert promises.overdue(10.1) == [Answered(False)]
    assert (promises.overdue(99.0), len(promises)) == ([], 0)


def test_capped_instances_do_the_sum_of_their_speeds() -> None:
    costs = Costs(1.0, 2.0, 3.0, 4.0)
    capped = [worker(), worker(speeds=Speeds(prefill=0.5, decode=0.8, encode=0.4))]
    assert slowed(costs, capped) == Costs(1.0 / 0.7, 2.0 / 0.75, 3.0 / 0.75, 4.0 / 0.9)
    assert slowed(costs, [worker()]) == slowed(costs, []) == costs


def test_of_slots_that_may_not_be_used_no_batch_is_made() -> None:
    costs = costs_of([worker(slots_share=0.5)], EncodePace(), GUESS)
    assert costs.decode_token_s == pytest.approx(0.02 / 5 + 0.001)


def test_what_an_encoder_does_under_a_cap_is_no_pace_of_its_own() -> None:
    pace = EncodePace()
    pace.observe("e-0", "1", Encoded(1.0, 100))
    pace.observe("e-0", "1", Encoded(3.0, 200), speed=0.5)
    assert pace.token_s == pytest.approx(0.01)
