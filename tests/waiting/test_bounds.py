"""Bounds of waits: they hold as often as they say, whatever waits are distributed like."""

import math
from random import Random
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.waiting import Bounds, Wait

NINE_IN_TEN = NormalDist().inv_cdf(0.9)
AHEAD = 5


def held(waits: list[float], said: Wait, z: float = NINE_IN_TEN) -> list[bool]:
    """Of each wait, whether it stayed within the bound that was told before it."""
    bounds, out = Bounds(z), []
    for waited_s in waits:
        bound_s = bounds.of(said, AHEAD)
        out.append(waited_s <= bound_s)
        bounds.record(AHEAD, bound_s, waited_s)
    return out


def share(of: list[bool]) -> float:
    return sum(of) / len(of)


def test_at_first_it_is_the_estimates_own() -> None:
    said = Wait(10.0, 4.0)
    assert Bounds(1.28).of(said, AHEAD) == pytest.approx(said.bound(1.28))


@pytest.mark.parametrize(
    ("draw", "why"),
    [
        (lambda dice: dice.gauss(10.0, 2.0), "as the estimate says"),
        (lambda dice: dice.expovariate(1 / 40.0), "four times as long, and skewed"),
        (lambda dice: dice.lognormvariate(2.0, 1.5), "a heavy tail"),
        (lambda dice: 100.0 * (dice.random() < 0.5), "half of them a hundred, half of them nothing"),
    ],
)
@pytest.mark.parametrize("level", [0.9, 0.99])
def test_it_holds_at_its_level(draw, why: str, level: float) -> None:  # type: ignore[no-untyped-def]
    dice = Random(1)
    seen = held([draw(dice) for _ in range(6_000)], Wait(10.0, 4.0), NormalDist().inv_cdf(level))
    assert share(seen[1_000:]) == pytest.approx(level, abs=0.015), why


def test_where_waits_become_longer_it_follows() -> None:
    dice = Random(2)
    waits = [dice.expovariate(1 / (5.0 if at < 3_000 else 50.0)) for at in range(6_000)]
    seen = held(waits, Wait(10.0, 4.0))
    assert share(seen[3_000:3_020]) < 0.6
    assert share(seen[3_300:]) == pytest.approx(0.9, abs=0.02)


def test_one_octaves_waits_say_nothing_of_another() -> None:
    bounds, said = Bounds(NINE_IN_TEN), Wait(10.0, 4.0)
    before_s = bounds.of(said, 7)
    for _ in range(50):
        bounds.record(8, bounds.of(said, 8), 1_000.0)
    assert bounds.of(said, 7) == before_s
    assert bounds.of(said, 15) > 5 * before_s


@given(st.lists(st.tuples(st.integers(0, 2_000_000), st.floats(0.0, 1e6)), max_size=300), st.floats(0.0, 1e4))
def test_it_is_never_under_what_is_expected_and_bounded(seen: list[tuple[int, float]], mean_s: float) -> None:
    bounds, said = Bounds(NINE_IN_TEN), Wait(mean_s, 1.0)
    for ahead, waited_s in seen:
        bound_s = bounds.of(said, ahead)
        assert said.mean_s <= bound_s <= 31 * said.bound(NINE_IN_TEN)
        assert math.isfinite(bound_s)
        bounds.record(ahead, bound_s, waited_s)
