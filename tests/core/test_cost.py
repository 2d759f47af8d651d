"""Costs: curves, and iterations in closed form equal to iterations one by one."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.cost import Curve, EncodeCost, Link, StepCost, StepWork

seconds = st.floats(1e-6, 1.0)


@pytest.mark.parametrize(
    ("x", "y", "why"),
    [
        (-1.0, 1.0, "constant before the first point"),
        (1.0, 1.0, "a point"),
        (2.0, 2.0, "between two"),
        (3.0, 3.0, "the last"),
        (5.0, 5.0, "the last slope goes on"),
    ],
)
def test_a_curve(x: float, y: float, why: str) -> None:
    assert Curve((1.0, 2.5, 3.0), (1.0, 2.5, 3.0))(x) == pytest.approx(y), why


def test_a_curve_of_one_point_is_constant() -> None:
    assert Curve((4.0,), (0.5,))(100.0) == 0.5


@pytest.mark.parametrize(
    ("xs", "ys"), [((1.0, 1.0), (1.0, 2.0)), ((1.0, 2.0), (2.0, 1.0)), ((1.0,), (1.0, 2.0)), ((1.0,), (-1.0,))]
)
def test_what_is_no_curve(xs: tuple[float, ...], ys: tuple[float, ...]) -> None:
    with pytest.raises(AssertionError):
        Curve(xs, ys)


def one_by_one(cost: StepCost, first: StepWork, steps: int) -> list[float]:
    return [
        cost.step_s(
            StepWork(
                decode_sequences=first.decode_sequences,
                decode_context_tokens=first.decode_context_tokens + step * first.decode_sequences,
            )
        )
        for step in range(steps)
    ]


@given(seconds, seconds, st.floats(0, 1e-3), st.integers(1, 64), st.integers(0, 100_000), st.integers(1, 50))
def test_a_stretch_is_the_sum_of_its_steps(
    floor_s: float, slope_s: float, read_s: float, sequences: int, context: int, steps: int
) -> None:
    cost = StepCost(Curve((0.0, 100.0), (floor_s, floor_s + slope_s)), decode_context_token_s=read_s)
    first = StepWork(decode_sequences=sequences, decode_context_tokens=context)
    assert cost.stretch_s(first, steps) == pytest.approx(sum(one_by_one(cost, first, steps)))


@given(seconds, st.floats(0, 1e-3), st.integers(1, 64), st.integers(0, 100_000), st.integers(1, 200), st.floats(0, 1))
def test_steps_begun_is_the_step_that_runs_at_a_time(
    floor_s: float, read_s: float, sequences: int, context: int, step: int, within: float
) -> None:
    cost = StepCost(Curve((0.0,), (floor_s,)), decode_context_token_s=read_s)
    first = StepWork(decode_sequences=sequences, decode_context_tokens=context)
    before_s, after_s = (cost.stretch_s(first, steps) if steps else 0.0 for steps in (step - 1, step))
    at_s = before_s + (after_s - before_s) * within
    begun = cost.steps_begun(first, at_s)
    assert begun in ({step} if 0.001 < within < 0.999 else {max(1, step - 1), step, step + 1})


def test_media_rows_beside_the_sequence_cost_their_own() -> None:
    cost = StepCost(Curve((0.0,), (1.0,)), cross_token_s=0.1, cross_pair_s=0.01, decode_cross_token_s=0.001)
    work = StepWork(prefill_tokens=5, decode_sequences=2, cross_tokens=10, cross_pairs=50, decode_cross_tokens=20)
    assert cost.step_s(work) == pytest.approx(1.0 + 1.0 + 0.5 + 0.02)


def test_encoding_and_links() -> None:
    cost = EncodeCost(Curve((1.0, 4.0), (0.1, 0.4)), preprocess_part_s=0.01, preprocess_megapixel_s=0.02)
    assert cost.preprocess_s(500_000) == pytest.approx(0.02)
    sizes = [cost.tiles_s(tiles) for tiles in (1, 2, 4, 8)]
    assert all(b == pytest.approx(2 * a) for a, b in pairwise(sizes))
    assert Link(0.001, 1e9).transfer_s(1e6) == pytest.approx(0.002)


COUNTS = st.integers(0, 4000)


@given(COUNTS, st.integers(0, 64), st.integers(0, 100_000))
def test_an_iteration_is_its_prefill_and_its_decoding(tokens: int, sequences: int, context: int) -> None:
    cost = StepCost(Curve((0.0, 64.0, 8192.0), (0.02, 0.02, 2.0)), 1e-8, 1e-4, 1e-7)
    work = StepWork(tokens, tokens * tokens, sequences, context if sequences else 0)
    step_s = cost.step_s(work)
    prefill_s = cost.prefill_s(work, step_s)
    assert 0 <= prefill_s <= step_s
    assert (prefill_s == 0) or tokens
    assert (prefill_s == step_s) or sequences
    if sequences:
        alone = StepWork(decode_sequences=sequences, decode_context_tokens=context)
        assert step_s - prefill_s == pytest.approx(cost.step_s(alone)), "decoding takes what it takes alone"
