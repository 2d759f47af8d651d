"""Which cell a request goes to: tables of what a door knows and what it then does."""

import pytest

from headrace.core.cells import REST_S, SPREADS, STALE_S, CellSight, Door, home


def door(spread: str = "least-load", **cells: tuple[int, int, float]) -> Door:
    """cells: slots, open requests, expected wait."""
    found = Door(SPREADS[spread])
    for name, (slots, requests, wait_s) in cells.items():
        found.heard(CellSight(name, slots, requests, wait_s, frozenset({"m"})), 0.0)
    return found


@pytest.mark.parametrize(
    ("spread", "draw", "first", "why"),
    [
        ("by-room", 0.44, "a", "60 of 134 free slots"),
        ("by-room", 0.5, "b", "the next 70"),
        ("by-room", 0.98, "c", "4 of 134: seldom"),
        ("least-load", 0.0, "b", "30 of 100 beside 40 of 100 and 60 of 64"),
        ("least-wait", 0.0, "c", "whatever waits there already"),
        ("random", 0.0, "a", "its share of the slots is the first 38 %"),
        ("random", 0.5, "b", "the next"),
        ("random", 0.99, "c", "the last"),
        ("round-robin", 0.0, "b", "the second turn"),
    ],
)
def test_each_spread_looks_at_its_own(spread: str, draw: float, first: str, why: str) -> None:
    found = door(spread, a=(100, 40, 2.0), b=(100, 30, 1.0), c=(64, 60, 0.0))
    order = found.order("m", draw, 0.1)
    assert order[0] == first, why
    assert sorted(order) == ["a", "b", "c"]


def test_what_was_sent_counts_until_the_next_status() -> None:
    found = door(a=(10, 0, 0.0), b=(10, 1, 0.0))
    went = []
    for _ in range(6):
        name = found.order("m", 0.0, 0.1)[0]
        found.sent(name)
        went.append(name)
    assert (went.count("a"), went.count("b")) == (4, 2) or (went.count("a"), went.count("b")) == (3, 3)
    found.heard(CellSight("a", 10, 0, 0.0, frozenset({"m"})), 0.2)
    assert found.order("m", 0.0, 0.3)[0] == "a"


def test_two_choices_take_the_less_loaded_of_the_pair() -> None:
    found = door("two-choices", a=(100, 90, 0.0), b=(100, 10, 0.0))
    assert {found.order("m", draw, 0.1)[0] for draw in (0.0, 0.3, 0.6, 0.9)} == {"b"}


@pytest.mark.parametrize(
    ("now_s", "model", "order", "why"),
    [
        (STALE_S, "m", ["a", "b"], "both are heard"),
        (STALE_S + 0.1, "m", [], "nobody is"),
        (0.1, "other", [], "nobody serves it"),
        (0.1, "", ["a", "b"], "any model"),
    ],
)
def test_only_cells_that_are_heard_and_serve_the_model(now_s: float, model: str, order: list[str], why: str) -> None:
    assert door(a=(1, 0, 0.0), b=(1, 1, 0.0)).order(model, 0.0, now_s) == order, why


def test_who_did_not_answer_rests_behind_the_others_and_is_still_there() -> None:
    found = door(a=(10, 0, 0.0), b=(10, 5, 0.0))
    found.failed("a", 0.1)
    assert found.order("m", 0.0, 0.2) == ["b", "a"]
    assert found.order("m", 0.0, 0.1 + REST_S) == ["a", "b"]


def test_a_home_changes_for_those_of_a_cell_that_left_alone() -> None:
    keys = [f"key-{number}" for number in range(300)]
    before = {key: home(["a", "b", "c"], key) for key in keys}
    after = {key: home(["a", "c"], key) for key in keys}
    assert all(after[key] == before[key] for key in keys if before[key] != "b")
    counts = [list(before.values()).count(name) for name in "abc"]
    assert min(counts) > 60, counts
