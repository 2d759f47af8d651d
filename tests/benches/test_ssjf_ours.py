"""SSJF with this project's own predictor: answers that it has not learnt from, each with its own prediction."""

import numpy as np
import pytest

from headrace.core.lengths import Prediction
from headrace.predictor.model import lacking
from headrace.training.lengths_rows import Row
from loadtest.benches import ssjf_ours
from loadtest.benches.ssjf_fair import Load, once


def pairs(told: list[tuple[int, int]]) -> list[tuple[Row, Prediction]]:
    """Of true and predicted tokens."""
    return [(Row("headrace", "", true), Prediction.exactly(said)) for true, said in told]


def test_a_job_keeps_the_prediction_that_was_made_of_it() -> None:
    lengths = ssjf_ours.lengths_of(pairs([(500, 300), (20, 40), (90, 100)]))
    drawn = lengths.draw(np.random.default_rng(1), 50)
    assert set(zip(drawn.tokens, lengths.expected_tokens("ssjf", drawn), strict=True)) == {
        (500, 300.0),
        (20, 40.0),
        (90, 100.0),
    }
    assert list(drawn.classes) == ["ssjf"], "there is no table of a five-class predictor of these"


@pytest.mark.parametrize(("said", "as_good"), [([20, 90, 500], True), ([500, 90, 20], False)])
def test_what_is_said_decides_what_is_gained(said: list[int], as_good: bool) -> None:
    lengths = ssjf_ours.lengths_of(pairs(list(zip([20, 90, 500], said, strict=True))))
    found = once(Load("none", 0.9), lengths, seed=1)
    oracle, ours, fcfs = (found[policy]["jct_mean_s"] for policy in ("oracle", "ssjf", "fcfs"))
    assert oracle < fcfs
    assert (ours == oracle) == as_good
    assert (ours < fcfs) == as_good


@pytest.mark.skipif(bool(lacking()), reason=lacking())
def test_the_packaged_predictor_gains_most_of_what_true_lengths_do() -> None:
    """Of every eighth held-out answer, one seed."""
    found = ssjf_ours.measure((1,), every=8)
    assert found.keys() == {"held_out", "default_model"}
    each = found["held_out"]
    assert each["answers"] > 80
    assert 0.4 < each["kendall_tau"] < 0.9
    ours, most, chance = (
        each["gains"]["fair_09"]["none"][name]["jct_mean_s"][0] for name in ("ssjf", "oracle", "random")
    )
    assert most <= ours < 0.5 * most < chance
