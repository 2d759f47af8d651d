"""Sampling: a pure function of (logits, seed, index), and the distribution that its options promise."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from headrace.core.types import Sampling
from headrace.engines.sampling import Draw, gumbel, keep_likely, sample

WARM = Sampling(max_tokens=8, temperature=1.0, seed=3)
GREEDY = Sampling(max_tokens=8)


def logits(rows: int, vocab: int = 50, seed: int = 0) -> NDArray[np.float32]:
    return (3 * np.random.default_rng(seed).normal(size=(rows, vocab))).astype(np.float32)


def draw(sampling: Sampling, index: int = 0, seen: tuple[int, ...] = ()) -> Draw:
    return Draw(sampling, index, seen)


def test_greedy_is_the_argmax_and_reads_no_seed() -> None:
    given = logits(4)
    draws = [draw(replace(GREEDY, seed=seed), index=seed) for seed in range(4)]
    assert sample(given, draws) == given.argmax(1).tolist()


settings_of_a_row = st.builds(
    Sampling,
    max_tokens=st.just(8),
    temperature=st.sampled_from([0.0, 0.01, 0.7, 1.0, 2.0]),
    top_p=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
    top_k=st.sampled_from([0, 1, 5, 49, 200]),
    seed=st.integers(0, 2**64 - 1),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.8]),
)


@settings(max_examples=80, deadline=None)
@given(rows=st.lists(settings_of_a_row, min_size=1, max_size=6), index=st.integers(0, 8000), seed=st.integers(0, 99))
def test_a_row_does_not_depend_on_its_batch(rows: list[Sampling], index: int, seed: int) -> None:
    given_logits = logits(len(rows), seed=seed)
    before = given_logits.copy()
    draws = [draw(sampling, index + row, seen=(1, 2, 2, 7)) for row, sampling in enumerate(rows)]
    together = sample(given_logits, draws)
    alone = [sample(given_logits[row : row + 1], [draws[row]])[0] for row in range(len(rows))]
    assert together == alone == sample(given_logits, draws)
    np.testing.assert_array_equal(given_logits, before)


@settings(max_examples=100, deadline=None)
@given(top_k=st.integers(0, 60), top_p=st.floats(0.01, 1.0), seed=st.integers(0, 999))
def test_what_is_kept_is_the_smallest_likely_set(top_k: int, top_p: float, seed: int) -> None:
    (row,) = logits(1, seed=seed).astype(np.float64)
    (kept,) = keep_likely(row[None], np.array([top_k]), np.array([top_p]))
    order = np.argsort(-row)[: top_k or None]
    mass = np.exp(row[order] - row[order[0]])
    cumulated = np.cumsum(mass / mass.sum())
    size = min(int(np.searchsorted(cumulated, top_p)) + 1, len(order))
    assert set(np.flatnonzero(np.isfinite(kept))) == set(order[:size].tolist())
    assert (kept[order[:size]] == row[order[:size]]).all()


def test_draws_follow_the_softmax() -> None:
    row = np.log(np.array([[0.5, 0.3, 0.15, 0.05]], np.float32))
    drawn = [sample(row, [draw(WARM, index)])[0] for index in range(4000)]
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 4000, [0.5, 0.3, 0.15, 0.05], atol=0.025)


@pytest.mark.parametrize(
    ("change", "allowed"),
    [({"top_k": 2}, {0, 1}), ({"top_p": 0.79}, {0, 1}), ({"top_p": 0.81}, {0, 1, 2}), ({"top_k": 1}, {0})],
)
def test_nothing_outside_the_cut_is_drawn(change: dict[str, float], allowed: set[int]) -> None:
    row = np.log(np.array([[0.5, 0.3, 0.15, 0.05]], np.float32))
    drawn = {sample(row, [draw(replace(WARM, **change), index)])[0] for index in range(300)}  # type: ignore[arg-type]
    assert drawn == allowed


def test_a_cold_draw_is_the_argmax() -> None:
    given = logits(6)
    assert sample(given, [draw(replace(WARM, temperature=1e-4), i) for i in range(6)]) == given.argmax(1).tolist()


def test_a_penalty_turns_greedy_away_from_what_was_seen() -> None:
    row = np.array([[2.0, 1.9, -1.0]], np.float32)
    penalty = replace(GREEDY, repetition_penalty=1.5)
    assert sample(row, [draw(penalty)]) == [0]
    assert sample(row, [draw(penalty, seen=(0,))]) == [1]
    assert sample(np.array([[-1.0, -1.2]], np.float32), [draw(penalty, seen=(0, 0))]) == [1]


def test_noise_is_finite_and_keyed_by_seed_and_index() -> None:
    noise = gumbel(1, 2, 100_000)
    assert np.isfinite(noise).all()
    assert noise.mean() == pytest.approx(0.5772, abs=0.02)  # Euler's constant
    assert not np.array_equal(noise, gumbel(2, 1, 100_000))
    np.testing.assert_array_equal(noise[:10], gumbel(1, 2, 10))


def test_a_rounding_error_rarely_changes_a_draw() -> None:
    """What Gumbel-max is for: a continuation in another batch shape differs only at near ties."""
    given = logits(1, 5000)
    nudged = given + np.float32(1e-5) * np.random.default_rng(1).normal(size=given.shape).astype(np.float32)
    pairs = [(sample(given, [draw(WARM, index)]), sample(nudged, [draw(WARM, index)])) for index in range(300)]
    assert sum(a != b for a, b in pairs) <= 1
