"""What is left of a running request, by the quick way and by the distribution itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.lengths import LEVELS, Prediction
from headrace.core.lengths.constant import CHAT
from headrace.core.waiting import Remaining

values = st.lists(st.floats(1.0, 4_000.0), min_size=len(LEVELS), max_size=len(LEVELS)).map(sorted)


@given(values, st.integers(1, 5_000), st.lists(st.integers(0, 6_000), max_size=6))
def test_as_the_distribution_says(numbers: list[float], most: int, emitted: list[int]) -> None:
    length = Prediction.of(numbers, most)
    remaining = Remaining(length)
    for tokens in emitted:
        mean, variance = length.given(tokens).moments
        assert remaining.after(tokens)[0] == pytest.approx(mean, rel=1e-6, abs=1e-6)
        assert remaining.after(tokens)[1] == pytest.approx(variance, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(
    ("length", "emitted", "low", "high", "why"),
    [
        (CHAT, 0, 165, 185, "of the whole answer"),
        (CHAT, 200, 130, 160, "the short ones are over"),
        (CHAT, 500, 1, 60, "near the end of the distribution"),
        (Prediction.exactly(100), 60, 40, 40, "known"),
        (Prediction.exactly(100), 160, 60, 80, "outlived: up to as long again"),
        (Prediction.exactly(100, most=128), 128, 0, 1, "at its limit"),
    ],
)
def test_what_is_left(length: Prediction, emitted: int, low: float, high: float, why: str) -> None:
    mean, variance = Remaining(length).after(emitted)
    assert low - 1e-9 <= mean <= high + 1e-9, why
    assert variance >= 0.0
