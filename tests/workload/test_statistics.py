"""Statistics of traffic whose answers are known, by hand or by its closed form."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.workload.arrival import Arrival, Part
from headrace.workload.processes import Gamma, Modulated, Poisson
from headrace.workload.rates import DAY_S, diurnal
from headrace.workload.statistics import QUANTILES, describe, spread


def image(n: int, tokens: int = 0) -> tuple[Part, ...]:
    return (Part("image", 640, 480, tokens=tokens),) * n


HAND = [
    Arrival(100.0, 10, 1, blocks=(1, 2, 3)),
    Arrival(110.0, 20, 2, image(4, 50), blocks=(1, 2, 9)),
    Arrival(170.0, 30, 3, image(1)),
    Arrival(170.0, 40, 4, (Part("audio", duration_s=2.4),), blocks=(2, 3)),
    Arrival(220.0, 50, 5, (*image(1), Part("video", 64, 32, 3.0))),
]


def test_a_handful_by_hand() -> None:
    stats = describe(HAND)
    assert (stats.requests, stats.duration_s) == (5, 120.0)
    assert stats.shares == {"text": 0.2, "image": 0.4, "audio": 0.2, "mixed": 0.2}
    every = stats.traffic["all"]
    assert every.rate_rps == pytest.approx(5 / 120)
    assert every.gap_cv == pytest.approx(np.std([10, 60, 0, 50]) / 30)
    assert (every.peak_per_min, every.hourly) == (2, (5,))
    assert every.peak_to_mean == pytest.approx(2 / 2.5)
    assert stats.part_share("image", 1) == pytest.approx(2 / 3)
    assert stats.parts_per_min["image"].tolist() == [4, 1, 1]
    assert (stats.media_tokens["image"].count, stats.media_tokens["image"].mean) == (4, 50)
    assert stats.widths.keys() == {"image", "video"}
    assert (stats.seconds["audio"].greatest, stats.seconds["video"].greatest) == (2, 3)
    assert stats.hourly_image_share == (0.4,)


def test_reuse_counts_leading_blocks_that_came_before() -> None:
    """(1, 2) of the second prompt; the third's 2 came before, and so did its 3."""
    assert (describe(HAND).reuse.blocks, describe(HAND).reuse.reused) == (8, 4)
    fresh_first = [Arrival(0, 1, 1, blocks=(1, 2)), Arrival(1, 1, 1, blocks=(7, 1, 2))]
    assert describe(fresh_first).reuse.reused == 0


def test_nothing_and_one_request() -> None:
    empty = describe([])
    assert (empty.requests, empty.traffic, empty.input_tokens) == (0, {}, {})
    one = describe([Arrival(5.0, 3, 4)])
    assert (one.requests, one.duration_s, one.traffic["all"].rate_rps) == (1, 0.0, 0.0)
    assert one.input_tokens["text"].at(0.5) == 3


@settings(max_examples=100)
@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=200))
def test_quantiles_are_those_of_the_sorted_values(values: list[int]) -> None:
    told = spread(Counter(values))
    ordered = sorted(values)
    for p in QUANTILES:
        rank = max(math.ceil(p * len(values)), 1)
        assert told.at(p) == ordered[rank - 1]
    assert told.mean == pytest.approx(np.mean(values))
    assert (told.least, told.greatest, told.count) == (ordered[0], ordered[-1], len(values))


@pytest.mark.parametrize("index", [1.2, 2.0, 3.0])
def test_hill_finds_the_index_of_a_pareto_tail(index: float) -> None:
    values = 1000 * (1 + np.random.default_rng(4).pareto(index, 400_000))
    told = spread(Counter(np.rint(values).astype(int).tolist()))
    assert told.tail_index == pytest.approx(index, rel=0.07)


def test_hill_says_nothing_of_few_or_equal_values() -> None:
    assert spread(Counter(range(1, 100))).tail_index == 0
    assert spread(Counter({7: 100_000})).tail_index == 0


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_renewal_traffic_shows_its_cv_and_its_dispersion(cv: float) -> None:
    """Counts of long windows disperse by cv²."""
    times = Gamma(20.0, cv).times(np.random.default_rng(1), 20_000.0)
    told = describe(Arrival(t, 1, 1) for t in times).traffic["all"]
    assert told.gap_cv == pytest.approx(cv, rel=0.03)
    assert told.dispersion[60] == pytest.approx(cv * cv, rel=0.25)


def test_poisson_minutes_know_nothing_of_each_other_and_days_do() -> None:
    flat = describe(Arrival(t, 1, 1) for t in Poisson(0.5).times(np.random.default_rng(2), 2 * DAY_S))
    assert all(abs(r) < 0.08 for r in flat.traffic["all"].autocorrelation.values())
    days = Modulated(diurnal(0.5, swing=0.9)).times(np.random.default_rng(2), 3 * DAY_S)
    told = describe(Arrival(t, 1, 1) for t in days).traffic["all"].autocorrelation
    assert told[1] > 0.7
    assert told[60] > 0.6


def test_modalities_in_step_correlate_and_apart_do_not() -> None:
    rng, peak = np.random.default_rng(3), diurnal(0.3, swing=0.9)
    texts = [Arrival(t, 1, 1) for t in Modulated(peak).times(rng, DAY_S)]
    with_it = [Arrival(t, 1, 1, image(1)) for t in Modulated(peak).times(rng, DAY_S)]
    against = [Arrival(t, 1, 1, image(1)) for t in Modulated(diurnal(0.3, 0.9, 2.0)).times(rng, DAY_S)]
    both = [sorted([*texts, *images], key=lambda a: a.at_s) for images in (with_it, against)]
    assert describe(both[0]).modality_correlation > 0.5
    assert describe(both[1]).modality_correlation < -0.5


def test_traffic_that_begins_late_costs_no_memory() -> None:
    stats = describe([Arrival(1.7e9, 1, 1), Arrival(1.7e9 + 30, 1, 1)])
    assert (stats.duration_s, stats.traffic["all"].peak_per_min) == (30.0, 2)
