"""SSJF's released simulator as rebuilt: schedules by hand with and without each bias, and the biases' direction."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.benches.ssjf_biases import UNBIASED, biases, many
from loadtest.benches.ssjf_figures import change, mean_of
from loadtest.benches.ssjf_lengths import find, released, tabled
from loadtest.benches.ssjf_paper import HEADLINE, RERUNS, Setting
from loadtest.benches.ssjf_published import MODES, RELEASED, Biases, fcfs, gamma_arrivals, poisson_arrivals, ssjf

ARRIVAL_S = np.array([0.0, 1.0, 2.0, 3.0])
EXEC_S = np.array([6.0, 4.0, 5.0, 1.0])
NAN = np.full(4, np.nan)
ALONE = replace(RELEASED, fcfs_waits_alone=False)
ALL = replace(RELEASED, last_job_dropped=False)

# mode, size, biases: ends of the four jobs under FCFS
BY_ARRIVAL = [
    ("none", 4, RELEASED, [6, 10, 15, 16]),
    # a full batch begins when its last has come; it runs for its longest
    ("dynamic", 2, RELEASED, [7, 7, 12, 12]),
    ("dynamic", 2, ALONE, [6, 11, 11, 12]),
    # three are full at 2 s; the fourth waits out its 10 s though nobody is to come
    ("dynamic", 3, RELEASED, [8, 8, 8, 19]),
    ("dynamic", 3, ALONE, [6, 11, 11, 11]),
    # 1 to 5: rows 0 and 1; to 7: 0 goes on with 2; to 8: 3 comes in; then row 2, at 2 s left, waits 10 s for nobody
    ("continuous", 2, RELEASED, [7, 5, 20, 8]),
    ("continuous", 2, ALONE, [6, 10, 11, 11]),
    ("continuous", 4, ALONE, [6, 10, 11, 7]),  # row 0 ran alone: nobody joins before a job ends
]


@pytest.mark.parametrize(("mode", "size", "how", "expected"), BY_ARRIVAL)
def test_fcfs_ends(mode, size, how, expected) -> None:  # type: ignore[no-untyped-def]
    assert fcfs(mode, size, ARRIVAL_S, EXEC_S, how).tolist() == pytest.approx(expected)


# mode, size: ends under SJF by what is left
BY_LENGTH = [
    ("none", 4, [6, 11, 16, 7]),
    ("dynamic", 2, [6, 10, 15, 10]),
    ("continuous", 2, [6, 10, 12, 7]),  # row 3 is done at 7, 1 at 10 beside 2, which has then 2 s left
    ("continuous", 4, [6, 10, 11, 7]),
]


@pytest.mark.parametrize(("mode", "size", "expected"), BY_LENGTH)
def test_sjf_ends(mode, size, expected) -> None:  # type: ignore[no-untyped-def]
    assert ssjf(mode, size, ARRIVAL_S, EXEC_S, NAN, EXEC_S).tolist() == pytest.approx(expected)


def test_sjf_goes_by_what_it_is_told() -> None:
    ends_s = ssjf("none", 1, ARRIVAL_S, EXEC_S, [0.0, 3.0, 1.0, 2.0], EXEC_S)
    assert ends_s.tolist() == [6, 16, 11, 12]


# A short job waits behind a long one and is told to go last. At 11.5 s it has waited 11.4, but is credited 11.5.
STARVED_S = np.array([0.0, 0.1, 11.45, 11.45])
LASTS_S = np.array([11.5, 1.145, 2.0, 2.0])
GUARDED = [
    # the guard at 10 x 1.145 = 11.45 s: what it is credited passes, what it has waited does after one more job
    (ALL, LASTS_S, 1),
    (replace(ALL, waits_credited_whole=False), LASTS_S, 2),
    # by the prediction of a long job nobody starves
    (replace(ALL, guard_knows_true=False), np.full(4, 50.0), 3),
    (replace(ALL, guard_knows_true=False), np.full(4, 0.5), 1),
]


@pytest.mark.parametrize(("how", "said_s", "place"), GUARDED)
def test_the_guard_serves_who_has_waited_too_long(how, said_s, place) -> None:  # type: ignore[no-untyped-def]
    ends_s = ssjf("none", 1, STARVED_S, LASTS_S, [0.0, 9.0, 1.0, 2.0], said_s, how)
    assert int(np.argsort(np.argsort(ends_s))[1]) == place


def test_once_the_oldest_starves_the_whole_line_goes_by_waiting() -> None:
    """At 101 s everybody has waited for more than 100 s: the longest goes before the shortest."""
    at_s, lasts_s = np.array([0.0, 0.5, 0.6, 0.7]), np.array([101.0, 30.0, 20.0, 11.0])
    ends_s = ssjf("none", 1, at_s, lasts_s, np.full(4, np.nan), lasts_s, replace(ALL, waits_credited_whole=False))
    assert np.argsort(ends_s).tolist() == [0, 1, 2, 3]


def test_the_last_job_is_dropped_where_the_line_is_empty_before_it() -> None:
    at_s, lasts_s = np.array([0.0, 1.0, 50.0]), np.array([1.0, 1.0, 1.0])
    assert np.isnan(ssjf("none", 1, at_s, lasts_s, np.full(3, np.nan), lasts_s)[2])
    assert ssjf("none", 1, at_s, lasts_s, np.full(3, np.nan), lasts_s, ALL)[2] == 51.0


JOBS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), min_size=1, max_size=20)


@settings(deadline=None, max_examples=60)
@given(jobs=JOBS, size=st.integers(1, 5), mode=st.sampled_from(MODES), off=st.booleans())
def test_every_job_ends_once(jobs, size, mode, off) -> None:  # type: ignore[no-untyped-def]
    at_s = np.sort(np.array([at for at, _ in jobs], np.float64))
    lasts_s = np.array([lasts for _, lasts in jobs], np.float64)
    how = UNBIASED if off else ALL
    for ends_s in (
        fcfs(mode, size, at_s, lasts_s, how),
        ssjf(mode, size, at_s, lasts_s, np.full(len(jobs), np.nan), lasts_s, how),
    ):
        assert not np.isnan(ends_s).any()
        assert (ends_s - at_s >= lasts_s - 1e-6).all()
    released_ends_s = ssjf(mode, size, at_s, lasts_s, np.full(len(jobs), np.nan), lasts_s)
    assert not np.isnan(released_ends_s[:-1]).any()  # nobody but the last is dropped


@settings(deadline=None, max_examples=60)
@given(lasts=st.lists(st.integers(1, 9), min_size=1, max_size=11), other=st.randoms(use_true_random=False))
def test_shortest_first_has_the_least_mean_when_all_come_at_once(lasts, other) -> None:  # type: ignore[no-untyped-def]
    """Smith (1956). Nobody is guarded: no line takes 100 s, and what is said is never passed tenfold."""
    at_s, lasts_s = np.zeros(len(lasts)), np.array(lasts, np.float64)
    free = np.full(len(lasts), np.inf)
    shortest = ssjf("none", 1, at_s, lasts_s, lasts_s, free, UNBIASED).mean()
    assert shortest <= ssjf("none", 1, at_s, lasts_s, [other.random() for _ in lasts], free, UNBIASED).mean() + 1e-9
    assert shortest <= fcfs("none", 1, at_s, lasts_s, UNBIASED).mean() + 1e-9


# --- arrivals ---


def test_released_arrivals_are_whole_seconds_and_growing_gaps() -> None:
    rng = np.random.default_rng(0)
    assert (poisson_arrivals(rng, 200, 3.0, RELEASED) % 1 == 0).all()
    assert (poisson_arrivals(rng, 200, 3.0, UNBIASED) % 1 > 0).any()
    assert (np.diff(np.diff(gamma_arrivals(rng, 200, 0.1, 2.0, RELEASED))) >= -1e-9).all()
    assert (np.diff(np.diff(gamma_arrivals(rng, 200, 0.1, 2.0, UNBIASED))) < 0).any()
    for how in (RELEASED, UNBIASED):
        assert 3000 / poisson_arrivals(rng, 3000, 3.0, how)[-1] == pytest.approx(3.0, rel=0.1)


# --- the biases' direction, over the paper's 20 runs ---

GAMMA = Setting("continuous, gamma 0.11/s", "continuous", "gamma", 0.11)


def jct_change(setting: Setting, policy: str, how: Biases = RELEASED) -> float:
    runs = {name: mean_of(of) for name, of in many(setting, tabled(), how).items()}
    return change(runs[policy], runs["fcfs"], "jct_mean_s")


def test_waiting_alone_gives_even_chance_a_gain() -> None:
    assert jct_change(GAMMA, "random") < -0.2
    assert abs(jct_change(GAMMA, "random", ALONE)) < 0.1


def test_sorted_gaps_make_the_line_that_is_gained_on() -> None:
    gamma = replace(GAMMA, mode="none")
    assert jct_change(gamma, "oracle") < jct_change(gamma, "oracle", replace(RELEASED, gaps_sorted=False)) - 0.05


def test_gains_vanish_with_a_longer_overload() -> None:
    short, long = HEADLINE["none"], replace(HEADLINE["none"], jobs=400)
    assert jct_change(short, "oracle") < -0.35
    assert jct_change(long, "oracle") > -0.2


def test_a_quarter_of_the_jobs_flatters_the_throughput() -> None:
    runs = {name: mean_of(of) for name, of in many(HEADLINE["none"], tabled()).items()}
    quarter, whole = (
        runs["oracle"][name] / runs["fcfs"][name] for name in ("throughput_quarter_rps", "throughput_rps")
    )
    assert quarter > 2.0
    assert whole == pytest.approx(1.0, abs=0.05)


def test_every_bias_has_its_share_told() -> None:
    found = biases(tabled(), runs=2)
    for of in found.values():
        assert set(of["without"]) == {*(bias.name for bias in fields(Biases)), "all_of_these", "fifty_jobs"}
    none = found[HEADLINE["none"].name]["without"]
    assert none["fcfs_waits_alone"]["oracle"]["jct_share"] == 0.0  # a batch of one is always full


@pytest.mark.parametrize(("setting", "again"), RERUNS, ids=[setting.name for setting, _ in RERUNS])
def test_the_released_code_gave_the_same(setting, again) -> None:  # type: ignore[no-untyped-def]
    """Mean JCT against FCFS; 20 runs of 50 jobs leave a few points, and its predictors' classes are drawn here."""
    if not find().is_file():
        pytest.skip("the released predictions are not in shared/data")
    how = replace(RELEASED, fcfs_waits_alone=again.fcfs_waits_alone)
    runs = {name: mean_of(of) for name, of in many(setting, released(find()), how).items()}
    for policy, told in (("oracle", again.oracle), ("ssjf", again.cls), ("random", again.random)):
        assert change(runs[policy], runs["fcfs"], "jct_mean_s") == pytest.approx(told, abs=0.06), policy
