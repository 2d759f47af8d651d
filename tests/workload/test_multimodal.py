"""Generated traffic has the published statistics, modality by modality; what the seed decides stays reproducible."""

import math
import time
from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.workload import fitted
from headrace.workload.arrival import Arrival
from headrace.workload.check import against_lmm
from headrace.workload.multimodal import CountBursts, Multimodal, TextOnly
from headrace.workload.processes import Switching
from headrace.workload.quantiles import Quantiles, Shares
from headrace.workload.rates import DAY_S, HOUR_S, WEEK_S, ProcessError, constant
from headrace.workload.statistics import Spread, Statistics, describe


def drawn(source: Multimodal | TextOnly, seed: int, duration_s: float) -> Iterator[Arrival]:
    return source.arrivals(np.random.default_rng(seed), duration_s)


@pytest.fixture(scope="module")
def week() -> Statistics:
    return describe(drawn(Multimodal(rate_rps=0.3), 11, WEEK_S))


def test_a_week_looks_like_the_azure_lmm_trace(week: Statistics) -> None:
    findings = against_lmm(week)
    assert len(findings) > 40
    assert not [finding for finding in findings if not finding.ok]


def test_images_are_unclipped_on_request_and_bursts_are_theirs() -> None:
    """More than ten times the median hour's images, in hours whose requests are at most a few times as many."""
    raw = describe(drawn(Multimodal(rate_rps=0.1, images="raw"), 4, WEEK_S))
    assert not [finding for finding in against_lmm(raw, "raw") if not finding.ok]
    assert raw.parts["image"].greatest == 529


def test_the_check_sees_what_is_wrong(week: Statistics) -> None:
    """Traffic of other lengths, counts and shares is told apart, statistic by statistic."""
    other = Multimodal(rate_rps=3.0, image_share=0.3, profile="flat", bursty=False)
    wrong = {f.name for f in against_lmm(describe(drawn(other, 1, 2 * HOUR_S)), "raw") if not f.ok}
    assert {"image share of requests", "requests with 25 images", "requests with 529 images"} <= wrong
    kept = {f.name for f in against_lmm(week, image_token_share=0.0) if not f.ok}
    assert kept == {f"context tokens of image requests p{p}" for p in (5, 10, 25, 50, 75, 90, 95, 99)}


def test_each_modality_draws_from_its_own_generator() -> None:
    """Another image share, another text rate: the other modality's requests do not move."""
    base = Multimodal(rate_rps=2.0, image_share=0.5, profile="flat")
    more = Multimodal(rate_rps=3.0, image_share=2 / 3, profile="flat")
    texts = [[a for a in drawn(m, 5, 600.0) if not a.parts] for m in (base, more)]
    assert len(texts[0]) > 300
    assert [a.input_tokens for a in texts[0]] == [a.input_tokens for a in texts[1]]
    assert [a.at_s for a in texts[0]] == pytest.approx([a.at_s for a in texts[1]])


Profile = Literal["week", "day", "flat"]
PROFILES: tuple[Profile, ...] = get_args(Profile)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    image=st.floats(0, 0.5, allow_subnormal=False),
    audio=st.floats(0, 0.25, allow_subnormal=False),
    video=st.floats(0, 0.25, allow_subnormal=False),
    profile=st.sampled_from(PROFILES),
)
def test_any_mix_is_ordered_reproducible_and_has_its_shares(
    seed: int, image: float, audio: float, video: float, profile: Profile
) -> None:
    mix = Multimodal(
        rate_rps=4.0, image_share=image, audio_share=audio, video_share=video, profile=profile, bursty=False
    )
    arrivals = list(drawn(mix, seed, 600.0))
    assert arrivals == list(drawn(mix, seed, 600.0))
    times = [a.at_s for a in arrivals]
    assert times == sorted(times)
    assert not times or 0 <= times[0] <= times[-1] < 600
    if profile == "flat":
        stats = describe(arrivals)
        for name, share in (("image", image), ("audio", audio), ("video", video)):
            deviation = 6 * math.sqrt(max(share, 0.01) / len(arrivals))
            assert stats.shares.get(name, 0.0) == pytest.approx(share, abs=deviation)


def test_clips_have_durations_and_video_a_size() -> None:
    mix = Multimodal(rate_rps=5.0, image_share=0.0, audio_share=0.5, video_share=0.5, profile="flat")
    stats = describe(drawn(mix, 3, 2000.0))
    assert stats.shares.keys() == {"audio", "video"}
    assert stats.seconds["audio"].at(0.5) == pytest.approx(8, abs=1)
    assert stats.seconds["video"].at(0.5) == pytest.approx(15, abs=1)
    assert stats.widths.keys() == {"video"}


def test_tokens_can_be_counted_as_the_trace_does() -> None:
    for arrival in drawn(Multimodal(rate_rps=2.0, image_share=1.0, count_tokens=True, profile="flat"), 1, 300.0):
        media = sum(part.tokens for part in arrival.parts)
        assert media / (media + arrival.input_tokens) == pytest.approx(fitted.IMAGE_TOKEN_SHARE, abs=0.12)
    free = drawn(Multimodal(rate_rps=2.0, image_share=1.0, profile="flat"), 1, 300.0)
    assert {part.tokens for arrival in free for part in arrival.parts} == {0}


def test_the_week_begins_at_its_hour() -> None:
    """Hour 104 is among the quietest for text: a run that begins there sees it first."""
    texts = [
        describe(drawn(Multimodal(rate_rps=2.0, image_share=0.0, start_hour=hour), 6, 4 * HOUR_S)).requests
        for hour in (42.0, 102.0)
    ]
    assert texts[0] > 3 * texts[1]


def test_day_profile_has_its_peaks_apart() -> None:
    stats = describe(drawn(Multimodal(rate_rps=1.0, profile="day", bursty=False), 2, DAY_S))
    peaks = {name: int(np.argmax(stats.traffic[name].hourly)) for name in ("text", "image")}
    assert abs(peaks["text"] - 13.5) < 3
    assert abs(peaks["image"] - 21.5) < 3


@settings(max_examples=100, deadline=None)
@given(
    weights=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=8),
    share=st.floats(0.01, 0.99),
    grip=st.floats(0.0, 1.0),
)
def test_a_split_law_mixes_back_to_itself(weights: list[float], share: float, grip: float) -> None:
    law = Shares(tuple(range(1, len(weights) + 1)), tuple(weights))
    rest, top = law.split_top(share, grip)
    mix = (1 - share) * rest.probabilities + share * top.probabilities
    np.testing.assert_allclose(mix, law.probabilities, atol=1e-9)
    assert top.mean >= rest.mean - 1e-9


def test_count_bursts_keep_the_law_over_the_run() -> None:
    """Whatever the schedule: shares of the run are the law's, those of the bursts are far above."""
    law, rng = fitted.LMM_IMAGES, np.random.default_rng(2)
    bursts = CountBursts(Switching(calm_s=20 * HOUR_S, burst_s=3 * HOUR_S, burst_factor=1.0))
    counting = bursts.counting(law, constant(1.0), rng, WEEK_S)
    assert counting.burst.mean > 10 * counting.calm.mean
    times = np.sort(rng.uniform(0, WEEK_S, 200_000))
    assert counting.draw(rng, times).mean() == pytest.approx(law.mean, rel=0.05)


TEXTS = {
    "azure-conv": (fitted.CONV_RPS, fitted.CONV_CV, fitted.CONV_INPUT, fitted.CONV_OUTPUT),
    "azure-code": (fitted.CODE_RPS, fitted.CODE_CV, fitted.CODE_INPUT, fitted.CODE_OUTPUT),
    "sharegpt": (1.0, 1.0, fitted.SHAREGPT_INPUT, fitted.SHAREGPT_OUTPUT),
}


@pytest.mark.parametrize("like", sorted(TEXTS))
def test_text_alone_has_its_trace_s_rate_burstiness_and_lengths(like: str) -> None:
    rate_rps, cv, prompts, answers = TEXTS[like]
    stats = describe(drawn(TextOnly(like), 9, 40_000 / rate_rps))  # type: ignore[arg-type]
    bound = 6 * cv / math.sqrt(40_000)
    assert stats.traffic["all"].rate_rps == pytest.approx(rate_rps, rel=bound)
    assert stats.traffic["all"].gap_cv == pytest.approx(cv, rel=0.25 if cv > 5 else 0.05)
    assert_like(stats.input_tokens["all"], prompts)
    assert_like(stats.output_tokens["all"], answers)


def assert_like(got: Spread, wanted: Quantiles) -> None:
    """By rank: a value's share below is what a step in the table allows. Flat stretches have one value."""
    for p in (0.1, 0.5, 0.9, 0.99):
        low, high = wanted.at(np.array([max(p - 0.012, 0), min(p + 0.012, 1)]))
        assert low - 1 <= got.at(p) <= high + 1


def test_a_million_requests_take_less_than_twenty_seconds_of_one_core() -> None:
    began, source = time.process_time(), drawn(Multimodal(rate_rps=200.0, profile="flat"), 1, 500.0)
    number = sum(1 for _ in source)
    assert number == pytest.approx(100_000, rel=0.3)
    assert (time.process_time() - began) * 1e6 / number < 20.0


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"rate_rps": 0.0}, "rate_rps"),
        ({"image_share": 1.2}, "image_share"),
        ({"image_share": 0.8, "audio_share": 0.3}, "image_share"),
        ({"profile": "month"}, "profile"),
        ({"images": "all"}, "images"),
    ],
)
def test_impossible_mixes_are_named(changes: dict[str, object], field: str) -> None:
    with pytest.raises(ProcessError, match=field):
        Multimodal(**changes)  # type: ignore[arg-type]


def test_unknown_text_is_named() -> None:
    with pytest.raises(ProcessError, match="like"):
        TextOnly("poems")  # type: ignore[arg-type]
