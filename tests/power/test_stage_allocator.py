"""The stage allocator: beside the best of all shares, its hysteresis, and the moves that it proposes."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.power.allocator import EVERY_S, STEP_W, Allocator, StageLoad, better_move, greedy, mesh_goodput

GREEDY_GAP = 0.005  # its steps are not those of the enumeration


def stage(name: str, devices: float = 2.0, asked: float = 1.5, *, working: float = -1.0) -> StageLoad:
    decode = name == "decode"
    free = 0.75 if decode else 1.0
    return StageLoad(name, devices, asked, 121.7, 380.0 if decode else 700.0, 150.0, free_speed=free, working=working)


def best(stages: list[StageLoad], limit_w: float, step_w: float) -> float:
    """Of all shares in steps of step_w."""
    spans = [[low + step_w * n for n in range(int((high - low) / step_w) + 2)] for low, high in _bounds(stages)]
    found = [mesh_goodput(stages, watts) for watts in product(*spans) if sum(watts) <= limit_w + 1e-9]
    return max(found, default=0.0)


def _bounds(stages: list[StageLoad]) -> list[tuple[float, float]]:
    return [one.bounds_w for one in stages]


@given(
    st.lists(st.tuples(st.integers(1, 2), st.floats(0.05, 1.2)), min_size=3, max_size=3),
    st.floats(0.35, 1.0),
)
@settings(max_examples=25, deadline=None)
def test_it_is_as_good_as_the_best_of_all_shares(each: list[tuple[int, float]], share: float) -> None:
    names = ("encode", "prefill", "decode")
    stages = [stage(name, n, load * n) for name, (n, load) in zip(names, each, strict=True)]
    limit_w = max(share * sum(high for _, high in _bounds(stages)), sum(low for low, _ in _bounds(stages)))
    watts = greedy(stages, limit_w)
    assert sum(watts) <= limit_w + 1e-6
    assert mesh_goodput(stages, watts) >= (1.0 - GREEDY_GAP) * best(stages, limit_w, STEP_W)


def test_what_is_asked_little_of_keeps_its_least() -> None:
    stages = [stage("encode", asked=0.0), stage("prefill", asked=2.0), stage("decode", asked=0.5)]
    encode, prefill, decode = greedy(stages, 1_700.0)
    assert encode == stages[0].bounds_w[0]
    assert prefill > 900.0
    assert mesh_goodput(stages, [encode, prefill, decode]) > 0.9


def test_work_that_one_of_two_does_is_not_taken_for_work_that_both_do() -> None:
    even, uneven = stage("prefill", asked=1.0), stage("prefill", asked=1.0, working=1.0)
    assert even.goodput(700.0) > 1.0 > uneven.goodput(700.0)
    assert uneven.goodput(850.0) == pytest.approx(1.0)


def test_a_solution_holds_until_another_is_clearly_better() -> None:
    allocator, prefill = Allocator(), 1.5
    first = dict(allocator.solve([stage("prefill", asked=prefill), stage("decode")], 1_200.0, 0.0))
    for at, asked in enumerate((1.52, 1.48, 1.55), start=1):
        stages = [stage("prefill", asked=asked), stage("decode")]
        assert allocator.solve(stages, 1_200.0, at * EVERY_S) == first
    stages = [stage("prefill", asked=0.4), stage("decode", asked=2.0)]
    assert allocator.solve(stages, 1_200.0, 35.0) == first, "not within ten seconds"
    assert allocator.solve(stages, 1_200.0, 41.0) != first


def test_a_lower_limit_is_kept_at_once_and_without_one_nobody_has_a_budget() -> None:
    allocator, stages = Allocator(), [stage("prefill"), stage("decode")]
    allocator.solve(stages, 1_500.0, 0.0)
    assert sum(allocator.solve(stages, 1_000.0, 0.5).values()) <= 1_000.0
    assert allocator.solve(stages, 1e9, 1.0) == {}
    assert [share.budget_w for share in allocator.shares] == [high for _, high in _bounds(stages)]


def test_one_instance_moves_where_it_does_more() -> None:
    stages = [stage("prefill", 1.0, 2.0), stage("decode", 3.0, 0.5)]
    assert better_move(stages, 2_000.0, {"prefill", "decode"}) == ("decode", "prefill")
    assert better_move(stages, 2_000.0, {"decode"}) is None, "only workers that can do both"
    assert better_move([stage("prefill", 1.0, 0.5), stage("decode", 1.0, 2.0)], 2_000.0, {"prefill", "decode"}) is None
    allocator, moves = Allocator(), []
    for at in range(3):
        allocator.solve(stages, 2_000.0, at * EVERY_S, {"prefill", "decode"})
        moves.append([share.move for share in allocator.shares])
    assert moves == [[0, 0], [1, -1], [1, -1]], "once it looks better twice"
