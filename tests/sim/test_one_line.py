"""Workers that encode and prefill in one line, and orders at workers: who waits for whom."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headrace.sim.result import Result
from headrace.sim.run import simulate
from headrace.workload.arrival import Arrival, Part
from headrace.workload.fleet import PoolSpec
from headrace.workload.queueing import Queueing
from headrace.workload.scenario import parse
from headrace.workload.tables import ScenarioError
from tests.sim.scenes import COLOCATED, VISION, scene

ONE = PoolSpec("all", ("encode", "prefill", "decode"), gpu="a100", tp=4, count=1, batch_max=1)
PICTURE = Part("image", 560, 560)


def ask(at_s: float, pictures: int = 0, tokens: int = 100, ttft_s: float = 0.0) -> Arrival:
    parts = (PICTURE,) * pictures
    return Arrival(at_s, tokens, 4, parts, slo_class="interactive", model=VISION, ttft_s=ttft_s)


def run(pools: tuple[PoolSpec, ...], arrivals: list[Arrival], queue: Queueing) -> Result:
    return simulate(replace(scene(pools), queue=queue), "fcfs", 1, arrivals=arrivals)


def first_tokens(result: Result) -> list[int]:
    """Rows, in the order of their first tokens."""
    assert result.requests.finished.all()
    return [int(row) for row in np.argsort(result.requests.first_token_s)]


MIX = [ask(0.0, 4), ask(0.01, 1), ask(0.02), ask(0.03, 2)]


def test_in_one_line_a_question_of_text_waits_for_the_pictures_before_it() -> None:
    assert first_tokens(run((ONE,), MIX, Queueing(together=True))) == [0, 1, 2, 3]


def test_stages_that_take_turns_let_it_pass() -> None:
    assert first_tokens(run((ONE,), MIX, Queueing())) == [2, 0, 1, 3]


@pytest.mark.parametrize(
    ("line", "order", "why"),
    [
        ("slack", [2, 0, 3, 1], "text has the tightest target; two pictures must begin sooner than one"),
        ("shortest", [2, 1, 3, 0], "four pictures are the most work"),
    ],
)
def test_one_line_has_an_order(line: Any, order: list[int], why: str) -> None:
    asked = [replace(each, ttft_s=3.0 if each.parts else 0.3) for each in MIX]
    assert first_tokens(run((replace(ONE, line=line),), asked, Queueing(together=True))) == order, why


def test_prefill_follows_encoding_at_once() -> None:
    """Not after the next request's picture."""
    result = run((ONE,), [ask(0.0, 1), ask(0.0, 1)], Queueing(together=True))
    first, second = np.sort(result.requests.ttft_s)
    assert second / first == pytest.approx(2.0, rel=0.03)


def test_the_books_are_balanced_when_workers_with_one_line_die() -> None:
    from headrace.workload.fleet import Incident

    pools = (replace(ONE, count=3, start_s=1.0),)
    arrivals = [ask(0.05 * number, number % 3) for number in range(60)]
    dies = (Incident(1.0, "kill", "all-0"), Incident(1.5, "drain", "all-1"))
    place = replace(scene(pools, incidents=dies), queue=Queueing(together=True))
    assert simulate(place, "fcfs", 1, arrivals=arrivals).requests.finished.all()


def test_a_tower_is_as_slow_as_it_is_said_to_be() -> None:
    slower = tuple(replace(pool, encode_times=2.0) for pool in COLOCATED)
    one, two = (run(pools, [ask(0.0, 1)], Queueing()).requests.ttft_s[0] for pools in (COLOCATED, slower))
    assert two - one == pytest.approx(4 * 0.091, rel=0.01)  # four tiles of the profile's at one GPU


def test_a_scenario_says_how_requests_are_routed(tmp_path: Any) -> None:
    raw = {"about": "a", "duration_s": 1, "workload": {"kind": "generated"}}
    told = {"routing": "round-robin", "together": True, "encoder_window_tokens": 5}
    queue = parse(raw | {"queue": told}, tmp_path / "a.toml").queue
    assert dict(queue.settings()) == told
    assert "encoder_window_tokens" not in parse(raw, tmp_path / "a.toml").queue.settings()
    with pytest.raises(ScenarioError, match="routing"):
        parse(raw | {"queue": {"routing": "sideways"}}, tmp_path / "a.toml")
