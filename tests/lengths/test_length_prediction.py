"""A distribution of lengths keeps its order, its moments and its conditional form, whatever its quantiles."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.lengths.prediction import LEVELS, MOST_TOKENS, Prediction

values = st.lists(st.floats(1.0, 4_000.0), min_size=len(LEVELS), max_size=len(LEVELS)).map(sorted)
predictions = values.map(Prediction.of)
CHAT = Prediction.of((9, 13, 41, 140, 294, 397, 447, 502))


def sampled(prediction: Prediction) -> np.ndarray:
    return np.array([prediction.quantile(p) for p in (np.arange(20_000) + 0.5) / 20_000])


@given(predictions, st.floats(0, 1), st.floats(0, 1))
def test_quantiles_never_fall(prediction: Prediction, a: float, b: float) -> None:
    assert prediction.quantile(min(a, b)) <= prediction.quantile(max(a, b)) * (1 + 1e-12)


@given(values)
def test_what_goes_in_comes_out(numbers: list[float]) -> None:
    assert Prediction.of(numbers).values == pytest.approx(numbers)


@given(predictions, st.floats(0.001, 0.999))
def test_exceeds_undoes_quantile(prediction: Prediction, p: float) -> None:
    """Up to an atom, whose whole mass counts as not exceeded."""
    assert prediction.exceeds(prediction.quantile(p) * (1 + 1e-9)) <= 1 - p + 1e-5
    assert prediction.exceeds(prediction.quantile(p) * (1 - 1e-9)) >= 1 - p - 1e-5


@pytest.mark.parametrize("prediction", [CHAT, CHAT.given(100), CHAT.capped(200), CHAT.capped(200).given(150)])
def test_moments_are_those_of_the_drawn(prediction: Prediction) -> None:
    drawn = sampled(prediction)
    assert prediction.mean == pytest.approx(drawn.mean(), rel=1e-3)
    assert prediction.variance == pytest.approx(drawn.var(), rel=1e-2)
    assert prediction.median == pytest.approx(np.median(drawn), rel=1e-3)


@given(predictions, st.integers(1, 2_000), st.integers(1, 2_000))
def test_tokens_may_be_told_in_two_parts(prediction: Prediction, first: int, second: int) -> None:
    whole, parts = prediction.given(first + second), prediction.given(first).given(second)
    if prediction.exceeds(first + second) > 1e-6:
        assert parts.values == pytest.approx(whole.values, rel=1e-4, abs=1e-4)
    assert parts.emitted == whole.emitted == first + second


@given(predictions, st.integers(0, 5_000), st.floats(0.0, 1.0))
def test_something_always_remains(prediction: Prediction, emitted: int, p: float) -> None:
    left = prediction.given(emitted)
    assert left.quantile(p) >= -1e-6
    assert left.quantile(1.0) > 0
    assert left.mean > 0
    assert left.variance >= 0
    assert all(math.isfinite(value) for value in left.values)


@given(predictions, st.integers(1, 3_000))
def test_conditioning_is_bayes(prediction: Prediction, emitted: int) -> None:
    """P(L > emitted + n | L > emitted) = P(L > emitted + n) / P(L > emitted)."""
    alive = prediction.exceeds(emitted)
    if alive < 1e-3:
        return
    left = prediction.given(emitted)
    for n in (1, 10, 100, 1000):
        assert left.exceeds(n) == pytest.approx(prediction.exceeds(emitted + n) / alive, abs=1e-6)


@pytest.mark.parametrize(
    ("prediction", "emitted", "mean_low", "mean_high", "why"),
    [
        (Prediction.exactly(100), 0, 100, 100, "known"),
        (Prediction.exactly(100), 60, 40, 40, "known, in part done"),
        (Prediction.exactly(100), 100, 30, 60, "outlived: up to as long again"),
        (Prediction.exactly(100), 10_000, 3_000, 5_000, "the older, the longer"),
        (Prediction.exactly(100, most=128), 120, 1, 8, "but never past the cap"),
        (Prediction.exactly(900, most=128), 0, 128, 128, "cut off"),
        (CHAT, 400, 30, 90, "few are left, near the end of the distribution"),
    ],
)
def test_what_remains(prediction: Prediction, emitted: int, mean_low: float, mean_high: float, why: str) -> None:
    assert mean_low - 1e-9 <= prediction.given(emitted).mean <= mean_high + 1e-9, why


@given(values, st.integers(1, 5_000))
def test_a_cap_bounds_everything(numbers: list[float], most: int) -> None:
    capped = Prediction.of(numbers, most)
    assert capped.quantile(1.0) <= most + 1e-9
    assert capped.exceeds(most) == 0.0
    assert capped.mean <= Prediction.of(numbers).mean + 1e-6


@pytest.mark.parametrize(
    ("given_values", "expected"),
    [
        ((5, 3, 4, 4, 9, 8, 10, 10), (5, 5, 5, 5, 9, 9, 10, 10)),
        ((-3, 0, 0.5, 2, 3, 4, 5, 6), (1, 1, 1, 2, 3, 4, 5, 6)),
        ((1, 2, math.nan, 4, 5, 6, 7, 8), (1, 2, 2, 4, 5, 6, 7, 8)),
        ((1, 2, 3, 4, 5, 6, 7, math.inf), (1, 2, 3, 4, 5, 6, 7, MOST_TOKENS)),
    ],
)
def test_bad_quantiles_are_put_right(given_values: tuple[float, ...], expected: tuple[float, ...]) -> None:
    assert Prediction.of(given_values).values == pytest.approx(expected)
