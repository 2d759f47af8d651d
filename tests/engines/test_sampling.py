"""Sampling: a pure function of (logits, seed, index), and the distribution that its options promise."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from headrace.core.types import Sampling
from headrace.engines.likeliest import GROUP, largest, least_kept
from headrace.engines.noise import SCATTERED_MAX, gumbel, key_of, row_words, word_reaching, words_at
from headrace.engines.sampling import Draw, sample

WARM = Sampling(max_tokens=8, temperature=1.0, seed=3)
GREEDY = Sampling(max_tokens=8)


def logits(rows: int, vocab: int = 50, seed: int = 0) -> NDArray[np.float32]:
    return (3 * np.random.default_rng(seed).normal(size=(rows, vocab))).astype(np.float32)


def draw(sampling: Sampling, index: int = 0, seen: tuple[int, ...] = ()) -> Draw:
    return Draw(sampling, index, seen)


def tokens(given: NDArray[np.float32], draws: list[Draw]) -> list[int]:
    return [drawn.token for drawn in sample(given, draws)]


def test_greedy_is_the_argmax_and_reads_no_seed() -> None:
    given = logits(4)
    draws = [draw(replace(GREEDY, seed=seed), index=seed) for seed in range(4)]
    assert tokens(given, draws) == given.argmax(1).tolist()


settings_of_a_row = st.builds(
    Sampling,
    max_tokens=st.just(8),
    temperature=st.sampled_from([0.0, 0.01, 0.7, 1.0, 2.0]),
    top_p=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
    top_k=st.sampled_from([0, 1, 5, 49, 200]),
    seed=st.integers(0, 2**64 - 1),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.8]),
    logprobs=st.sampled_from([None, 0, 3]),
)


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(settings_of_a_row, min_size=1, max_size=6),
    index=st.integers(0, 8000),
    seed=st.integers(0, 99),
    vocab=st.sampled_from([50, 5000]),
)
def test_a_row_does_not_depend_on_its_batch(rows: list[Sampling], index: int, seed: int, vocab: int) -> None:
    given_logits = logits(len(rows), vocab, seed)
    before = given_logits.copy()
    draws = [draw(sampling, index + row, seen=(1, 2, 2, 7)) for row, sampling in enumerate(rows)]
    together = sample(given_logits, draws)
    alone = [sample(given_logits[row : row + 1], [draws[row]])[0] for row in range(len(rows))]
    assert together == alone == sample(given_logits, draws)
    np.testing.assert_array_equal(given_logits, before)


def by_the_book(row: NDArray[np.float32], one: Draw) -> int:
    """Every step over the whole row in float64, with a sort: what the fast way must equal."""
    s = one.sampling
    values = row.astype(np.float64)
    for seen in set(one.seen):
        values[seen] = values[seen] / s.repetition_penalty if values[seen] > 0 else values[seen] * s.repetition_penalty
    values = (values - values.max()) / s.temperature
    order = np.argsort(-values, kind="stable")[: s.top_k or None]
    mass = np.exp(values[order])
    before = np.cumsum(mass) - mass
    order = order[: max(1, int((before < s.top_p * mass.sum()).sum()))] if s.top_p < 1.0 else order
    noise = gumbel(row_words(key_of(s.seed, one.index), len(row)))
    return int(order[np.argmax(values[order] + noise[order])])


@settings(max_examples=60, deadline=None)
@given(sampling=settings_of_a_row, seed=st.integers(0, 9999), spread=st.sampled_from([0.01, 1.0, 3.0]))
def test_the_shortcuts_draw_what_the_whole_row_would(sampling: Sampling, seed: int, spread: float) -> None:
    given = logits(8, 3000, seed) * np.float32(spread)
    warm = replace(sampling, temperature=sampling.temperature or 1.0)
    draws = [draw(warm, index, seen=(3, 5, 5)) for index in range(len(given))]
    assert tokens(given, draws) == [by_the_book(row, one) for row, one in zip(given, draws, strict=True)]


@settings(max_examples=100, deadline=None)
@given(
    top_k=st.integers(0, 60),
    top_p=st.floats(0.01, 1.0),
    seed=st.integers(0, 999),
    spread=st.sampled_from([0.001, 3.0]),
    vocab=st.sampled_from([50, 2000]),
)
def test_what_is_kept_is_the_smallest_likely_set(
    top_k: int, top_p: float, seed: int, spread: float, vocab: int
) -> None:
    """A flat row has a nucleus of almost all tokens: more than the first look sees."""
    (row,) = logits(1, vocab, seed) * np.float32(spread)
    (least,) = least_kept(row[None], np.array([top_k]), np.array([top_p]))
    order = np.argsort(-row)[: top_k or None]
    mass = np.exp(row[order].astype(np.float64) - row[order[0]])
    cumulated = np.cumsum(mass / mass.sum())
    kept = int((row >= least).sum())
    assert set(np.flatnonzero(row >= least)) == set(order[:kept].tolist())
    # Sums round: a set whose mass is that near to top_p may have one more or one less.
    assert kept == len(order) or cumulated[kept - 1] > top_p - 1e-6, "its mass reaches top_p"
    assert kept == 1 or cumulated[kept - 2] < top_p + 1e-6, "and would not without the last"


@settings(max_examples=60, deadline=None)
@given(
    vocab=st.sampled_from([1, 63, GROUP * 40, GROUP * 40 + 17, 9000]),
    count=st.integers(1, 21),
    levels=st.sampled_from([3, 100_000]),
    seed=st.integers(0, 999),
)
def test_the_largest_are_the_largest(vocab: int, count: int, levels: int, seed: int) -> None:
    """With few levels almost all are ties."""
    rows = np.random.default_rng(seed).integers(0, levels, (3, vocab)).astype(np.float32)
    values, columns = largest(rows, count)
    np.testing.assert_array_equal(values, -np.sort(-rows, axis=1)[:, :count])
    np.testing.assert_array_equal(np.take_along_axis(rows, columns, axis=1), values)
    assert all(len(set(row.tolist())) == len(row) for row in columns)


def test_draws_follow_the_softmax() -> None:
    row = np.log(np.array([[0.5, 0.3, 0.15, 0.05]], np.float32))
    drawn = [tokens(row, [draw(WARM, index)])[0] for index in range(4000)]
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 4000, [0.5, 0.3, 0.15, 0.05], atol=0.025)


@pytest.mark.parametrize(
    ("change", "allowed"),
    [({"top_k": 2}, {0, 1}), ({"top_p": 0.79}, {0, 1}), ({"top_p": 0.81}, {0, 1, 2}), ({"top_k": 1}, {0})],
)
def test_nothing_outside_the_cut_is_drawn(change: dict[str, float], allowed: set[int]) -> None:
    row = np.log(np.array([[0.5, 0.3, 0.15, 0.05]], np.float32))
    drawn = {tokens(row, [draw(replace(WARM, **change), index)])[0] for index in range(300)}  # type: ignore[arg-type]
    assert drawn == allowed


@pytest.mark.parametrize("temperature", [1e-4, 1e-40])
@pytest.mark.parametrize("top_k", [0, 3])
def test_a_cold_draw_is_the_argmax(temperature: float, top_k: int) -> None:
    given = logits(6)
    cold = replace(WARM, temperature=temperature, top_k=top_k)
    assert tokens(given, [draw(cold, i) for i in range(6)]) == given.argmax(1).tolist()


def test_a_penalty_turns_greedy_away_from_what_was_seen() -> None:
    row = np.array([[2.0, 1.9, -1.0]], np.float32)
    penalty = replace(GREEDY, repetition_penalty=1.5)
    assert tokens(row, [draw(penalty)]) == [0]
    assert tokens(row, [draw(penalty, seen=(0,))]) == [1]
    assert tokens(np.array([[-1.0, -1.2]], np.float32), [draw(penalty, seen=(0, 0))]) == [1]


def test_logprobs_are_the_log_softmax_of_the_raw_logits() -> None:
    """Whatever the temperature, the cut and the penalty; and only rows that ask are told."""
    given = logits(4, 5000, seed=5)
    warm = replace(WARM, temperature=0.5, top_k=3, repetition_penalty=1.4)
    asked = [None, 0, 5, 20]
    drawn = sample(given, [draw(replace(warm, logprobs=n), index, seen=(1, 9)) for index, n in enumerate(asked)])
    reference = given.astype(np.float64) - np.log(np.exp(given.astype(np.float64)).sum(axis=1, keepdims=True))
    assert drawn[0].logprobs is None
    for row, n, one in zip(reference[1:], asked[1:], drawn[1:], strict=True):
        assert one.logprobs is not None
        assert n is not None
        assert one.logprobs.logprob == pytest.approx(row[one.token], abs=2e-6)
        assert [token for token, _ in one.logprobs.top] == np.argsort(-row)[:n].tolist()
        np.testing.assert_allclose([value for _, value in one.logprobs.top], -np.sort(-row)[:n], atol=2e-6)
        values = [one.logprobs.logprob, *(value for _, value in one.logprobs.top)]
        assert values == np.array(values, np.float32).tolist(), "they change on their way through a message"


def test_noise_is_finite_and_keyed_by_seed_and_index() -> None:
    noise = gumbel(row_words(key_of(1, 2), 100_000))
    assert np.isfinite(noise).all()
    assert noise.mean() == pytest.approx(0.5772, abs=0.02)  # Euler's constant
    assert not np.array_equal(noise, gumbel(row_words(key_of(2, 1), 100_000)))
    np.testing.assert_array_equal(noise[:10], gumbel(row_words(key_of(1, 2), 10)))
    assert np.isfinite(gumbel(np.array([0, 2**64 - 1], np.uint64))).all()


@settings(max_examples=60, deadline=None)
@given(
    seeds=st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**40)), min_size=1, max_size=5),
    count=st.sampled_from([1, 40, 6 * SCATTERED_MAX]),
    pick=st.integers(0, 999),
)
def test_noise_at_scattered_columns_is_the_whole_rows(seeds: list[tuple[int, int]], count: int, pick: int) -> None:
    generator = np.random.default_rng(pick)
    rows, columns = generator.integers(0, len(seeds), count), generator.integers(0, 60_000, count)
    keys = np.stack([key_of(*seed) for seed in seeds])
    whole = np.stack([row_words(key, 60_000) for key in keys])
    np.testing.assert_array_equal(words_at(keys, rows, columns), whole[rows, columns])


@given(noise=st.floats(-4.0, 40.0))
def test_a_word_below_the_reaching_one_has_less_noise(noise: float) -> None:
    reaching = word_reaching(noise)
    assert reaching == 0 or gumbel(np.array([reaching - np.uint64(1)]))[0] < noise


def test_a_rounding_error_rarely_changes_a_draw() -> None:
    """What Gumbel-max is for: a continuation in another batch shape differs only at near ties."""
    given = logits(1, 5000)
    nudged = given + np.float32(1e-5) * np.random.default_rng(1).normal(size=given.shape).astype(np.float32)
    pairs = [(tokens(given, [draw(WARM, index)]), tokens(nudged, [draw(WARM, index)])) for index in range(300)]
    assert sum(a != b for a, b in pairs) <= 1


def test_the_unlikely_win_by_luck_as_often_as_they_should() -> None:
    """One token nine nats above 5,000 others, which together are as likely as it is four times out of ten."""
    row = np.full((1, 5000), -9.0, np.float32)
    row[0, 17] = 0.0
    draws = [draw(WARM, index) for index in range(200)]
    drawn = [tokens(row, [one])[0] for one in draws]
    assert drawn == [by_the_book(row[0], one) for one in draws]
    assert 50 <= sum(token != 17 for token in drawn) <= 110
