"""Arrival processes keep their rate, their cv and their order, whatever the parameters; seeds reproduce them."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.workload.processes import (
    Bursts,
    ExponentialGaps,
    Gamma,
    GammaGaps,
    Gaps,
    Modulated,
    Poisson,
    Process,
    Switching,
    Weibull,
    WeibullGaps,
)
from headrace.workload.rates import DAY_S, HOUR_S, Floats, ProcessError, RateCurve, constant, diurnal, hourly

rates = st.floats(0.05, 50.0)
cvs = st.floats(0.1, 4.0)
seeds = st.integers(0, 2**32 - 1)
RENEWALS: dict[str, Callable[[float, float], Process]] = {
    "poisson": lambda r, cv: Poisson(r),
    "gamma": Gamma,
    "weibull": Weibull,
}
kinds = st.sampled_from(sorted(RENEWALS))


def renewal(kind: str, rate_rps: float, cv: float) -> Process:
    return RENEWALS[kind](rate_rps, cv)


def times_of(process: Process, seed: int, until_s: float) -> Floats:
    return np.fromiter(process.times(np.random.default_rng(seed), until_s), dtype=float)


@settings(max_examples=60, deadline=None)
@given(kind=kinds, rate_rps=rates, cv=cvs, seed=seeds)
def test_renewal_keeps_rate_and_cv(kind: str, rate_rps: float, cv: float, seed: int) -> None:
    """The count is asymptotically normal with variance cv² x mean: six of its deviations are a bound that holds."""
    cv = 1.0 if kind == "poisson" else cv
    expected = 20_000.0
    times = times_of(renewal(kind, rate_rps, cv), seed, expected / rate_rps)
    assert abs(len(times) - expected) < 6 * cv * math.sqrt(expected) + 6 * (cv * cv + 1)
    gaps = np.diff(times)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.25 if cv > 1.5 else 0.1)


@settings(max_examples=60, deadline=None)
@given(kind=kinds, rate_rps=rates, cv=cvs, seed=seeds, requests=st.integers(0, 500))
def test_times_are_ordered_within_the_window_and_reproducible(
    kind: str, rate_rps: float, cv: float, seed: int, requests: int
) -> None:
    process, until_s = renewal(kind, rate_rps, cv), requests / rate_rps
    times = times_of(process, seed, until_s).tolist()
    assert times == times_of(process, seed, until_s).tolist()
    assert all(a <= b for a, b in pairwise(times))
    assert all(0 <= t < until_s for t in times)


@pytest.mark.parametrize(
    "gaps", [ExponentialGaps(), GammaGaps(3.0), GammaGaps(0.3), WeibullGaps(3.0), WeibullGaps(0.3)]
)
def test_starts_in_equilibrium(gaps: Gaps) -> None:
    """E[N(t)] = rate x t from the first second on; begun at an arrival, cv 3 would give 4 more in every run."""
    rng, runs, expected = np.random.default_rng(5), 4_000, 2.5
    process = Modulated(constant(1.0), gaps)
    counts = np.array([sum(1 for _ in process.times(rng, expected)) for _ in range(runs)])
    assert counts.mean() == pytest.approx(expected, abs=5 * counts.std() / math.sqrt(runs))


def test_gaps_are_independent() -> None:
    """A renewal process, not sorted draws: neighbouring gaps know nothing of each other."""
    gaps = np.diff(times_of(Gamma(1.0, 2.0), 3, 100_000.0))
    ranks = gaps.argsort().argsort()
    assert abs(np.corrcoef(ranks[:-1], ranks[1:])[0, 1]) < 0.015


@pytest.mark.parametrize(("cv", "shape"), [(1.0, 1.0), (2.2360679775, 0.5), (0.5227232, 2.0)])
def test_weibull_shape_solves_the_cv(cv: float, shape: float) -> None:
    assert WeibullGaps(cv).shape == pytest.approx(shape, rel=1e-6)


@st.composite
def curves(draw: st.DrawFn) -> RateCurve:
    steps = draw(st.lists(st.floats(0.0, 100.0).filter(lambda x: x == 0 or x > 1e-3), min_size=1, max_size=6))
    levels = draw(st.lists(st.floats(0.0, 20.0).filter(lambda x: x == 0 or x > 1e-3), min_size=2, max_size=7))
    n = min(len(steps) + 1, len(levels))
    at_s = (0.0, *np.cumsum(steps[: n - 1]).tolist())
    periodic = at_s[-1] > 0 and RateCurve(at_s, tuple(levels[:n])).expected(np.array(at_s[-1:]))[0] > 1e-3
    return RateCurve(at_s, tuple(levels[:n]), at_s[-1] if periodic and draw(st.booleans()) else 0.0)


@settings(max_examples=200, deadline=None)
@given(curve=curves(), share=st.floats(0.0, 1.0))
def test_when_is_the_inverse_of_expected(curve: RateCurve, share: float) -> None:
    horizon = 3 * curve.at_s[-1] + 10
    total = float(curve.expected(np.array([horizon]))[0])
    wanted = np.array([share * total])
    at = curve.when(wanted)
    assert np.isinf(at).all() or curve.expected(at)[0] == pytest.approx(wanted[0], rel=1e-6, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(curve=curves(), seed=seeds)
def test_steps_multiply_the_rate_everywhere(curve: RateCurve, seed: int) -> None:
    rng = np.random.default_rng(seed)
    until_s = curve.at_s[-1] + 5
    starts = np.concatenate(([0.0], np.sort(rng.uniform(0, until_s, 4))))
    factor = rng.uniform(0, 3, 5)
    stepped = curve.times_steps(starts, factor, until_s)
    fine = np.sort(rng.uniform(0, until_s, 200))
    wanted = curve.rate(fine) * factor[np.searchsorted(starts, fine, side="right") - 1]
    np.testing.assert_allclose(stepped.rate(fine), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("gaps", [ExponentialGaps(), GammaGaps(2.0), WeibullGaps(0.5)])
def test_time_rescaling_follows_the_curve(gaps: Gaps) -> None:
    """Requests of each hour of the day over 60 days against the integral of the rate over that hour."""
    curve, days = diurnal(0.2, swing=0.8, peak_hour=15), 60
    times = np.fromiter(Modulated(curve, gaps).times(np.random.default_rng(8), days * DAY_S), dtype=float)
    hours = np.bincount((times % DAY_S // HOUR_S).astype(int), minlength=24)
    edges = curve.expected(np.arange(25.0) * HOUR_S)
    np.testing.assert_allclose(hours, np.diff(edges) * days, rtol=0.10)
    assert hours.argmax() in (14, 15, 16)


def test_a_profile_keeps_its_mean_and_can_begin_later() -> None:
    week = hourly([1, 5, 2, 8], 3.0)
    assert week.mean_rps(4 * HOUR_S) == pytest.approx(3.0)
    later = week.shifted(1.25 * HOUR_S)
    at = np.linspace(0, 8 * HOUR_S, 97)
    np.testing.assert_allclose(later.rate(at), week.rate(at + 1.25 * HOUR_S), rtol=1e-9)
    assert later.mean_rps(4 * HOUR_S) == pytest.approx(3.0)


def test_traffic_can_end() -> None:
    curve = RateCurve((0.0, 10.0, 10.0), (5.0, 5.0, 0.0))
    times = list(Poisson(5.0).times(np.random.default_rng(0), 10.0))
    ended = list(Modulated(curve).times(np.random.default_rng(0), 1e6))
    assert 0 < len(ended) < 100
    assert max(ended) < 10
    assert len(times) == pytest.approx(50, abs=40)


@pytest.mark.parametrize("window_s", [1.0, 10.0, 100.0])
def test_bursts_disperse_as_the_mmpp_does(window_s: float) -> None:
    switching = Switching(calm_s=60.0, burst_s=15.0, burst_factor=8.0)
    process = Bursts(constant(5.0), switching)
    times = times_of(process, 21, 200_000.0)
    assert len(times) / 200_000.0 == pytest.approx(5.0, rel=0.05)
    counts = np.bincount((times / window_s).astype(int), minlength=int(200_000 / window_s))
    closed = switching.normalised().dispersion(5.0, window_s)
    assert counts.var() / counts.mean() == pytest.approx(closed, rel=0.12)


def test_no_traffic_is_no_arrivals() -> None:
    assert list(Poisson(0.0).times(np.random.default_rng(0), 100.0)) == []


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: GammaGaps(0.0), "cv"),
        (lambda: WeibullGaps(math.inf), "cv"),
        (lambda: RateCurve((1.0,), (1.0,)), "at_s"),
        (lambda: RateCurve((0.0, 2.0, 1.0), (1.0, 1.0, 1.0)), "at_s"),
        (lambda: RateCurve((0.0,), (-1.0,)), "rate_rps"),
        (lambda: RateCurve((0.0, 5.0), (0.0, 0.0), 5.0), "rate_rps"),
        (lambda: Switching(0.0, 1.0, 2.0), "calm_s"),
        (lambda: diurnal(1.0, swing=1.5), "swing"),
        (lambda: constant(1.0).shifted(3.0), "period_s"),
    ],
)
def test_impossible_parameters_are_named(make: object, field: str) -> None:
    with pytest.raises(ProcessError, match=field):
        make()  # type: ignore[operator]
