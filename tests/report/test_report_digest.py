"""Digests: what they say is what the result says, and their size does not grow with it."""

import pickle

import numpy as np
import pytest

from headrace.report.digest import POINTS_MAX, digest
from tests.report.synthetic import nothing, result

RESULT = result()
DIGEST = digest(RESULT)


def test_figures_are_the_results() -> None:
    assert DIGEST.summary == RESULT.summary()
    counted = sum(DIGEST.attainment[name] * DIGEST.requests[name] for name in DIGEST.requests)
    assert counted == pytest.approx(RESULT.met().sum())
    assert sum(DIGEST.ended.values()) == len(RESULT.requests)
    assert DIGEST.ended["unfinished"] == (RESULT.requests.reason == 5).sum()


def test_the_distribution_goes_through_the_percentiles() -> None:
    curve = DIGEST.ttft_cdf
    without = np.isnan(RESULT.requests.ttft_s).mean()
    assert curve.y[-1] == pytest.approx(1 - without)
    assert np.interp(0.5 * curve.y[-1], curve.y, curve.x) == pytest.approx(RESULT.summary()["ttft_p50_s"], rel=0.01)
    gaps = DIGEST.tbt_cdf
    assert (gaps.y[0], gaps.y[-1]) == (0.0, 1.0)
    assert np.interp(0.99, gaps.y, gaps.x) == pytest.approx(RESULT.summary()["tbt_p99_s"], rel=1e-6)


def test_the_burst_is_seen_where_it_was() -> None:
    curve = DIGEST.ttft["p99"]
    assert 1_400 < curve.x[np.nanargmax(curve.y)] < 1_700


def test_thinning_keeps_the_mean_and_the_last_instant() -> None:
    assert len(RESULT.t_s) > POINTS_MAX
    assert len(DIGEST.t_s) <= POINTS_MAX
    assert DIGEST.t_s[-1] == RESULT.t_s[-1]
    assert DIGEST.pools[1].power_w.mean() == pytest.approx(RESULT.pools[1].power_w.mean(), rel=0.01)


def test_ten_times_the_requests_have_a_digest_of_the_same_size() -> None:
    small, large = (len(pickle.dumps(digest(result(requests=count)))) for count in (6_000, 60_000))
    assert large < 1.1 * small


def test_nothing_has_a_digest() -> None:
    empty = digest(nothing())
    assert len(empty.ttft_cdf.x) == len(empty.tbt_cdf.x) == 0
    assert empty.requests == {"interactive": 0, "batch-1": 0, "batch-2": 0}
