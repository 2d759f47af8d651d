"""The predictors without a text model: what they know, what they learn, what they forget."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from headrace.core.lengths import PREDICTORS, Blurred, Features, Histogram, Oracle, RandomLengths, of_request
from headrace.core.lengths.constant import CHAT
from headrace.core.types import Media, MediaMeta, MediaSpan, Prompt, Request, Sampling

TEXT = Features(prompt_tokens=30, max_tokens=512, model="m", slo_class="interactive")
IMAGE = Features(prompt_tokens=30, max_tokens=512, model="m", slo_class="interactive", parts=(("image", 1),))


@pytest.mark.parametrize("name", PREDICTORS)
def test_every_predictor_respects_the_cap_and_repeats_itself(name: str) -> None:
    predictor = PREDICTORS[name]()
    assert predictor.name == name
    capped = Features(prompt_tokens=30, max_tokens=16)
    for request_id in ("a", "b", "c"):
        assert predictor.predict(request_id, capped).quantile(1.0) <= 16
        assert predictor.predict(request_id, TEXT) == predictor.predict(request_id, TEXT)
    predictor.learn(TEXT, 100, stopped=True)


def test_the_oracle_is_told() -> None:
    oracle = Oracle({"a": 7, "b": 900}.__getitem__)
    assert oracle.predict("a", TEXT).mean == pytest.approx(7)
    assert oracle.predict("b", TEXT).mean == pytest.approx(512)


def test_random_lengths_have_the_distribution_they_are_drawn_from_and_know_nothing() -> None:
    drawn = [RandomLengths().predict(str(i), TEXT).mean for i in range(4_000)]
    assert np.quantile(drawn, [0.25, 0.5, 0.75]) == pytest.approx([41, 140, 294], rel=0.1)
    assert RandomLengths(seed=1).predict("0", TEXT) != RandomLengths(seed=2).predict("0", TEXT)


@pytest.mark.parametrize("tau", [0.0, 0.3, 0.64, 1.0])
def test_blurred_has_the_rank_correlation_and_the_coverage_it_is_made_for(tau: float) -> None:
    lengths = np.exp(np.random.default_rng(1).normal(np.log(100), 1.0, 4_000)).round().clip(1).astype(int)
    blurred = Blurred(lambda request_id: int(lengths[int(request_id)]), tau=tau, median=100, spread=1.0)
    wide = Features(prompt_tokens=1, max_tokens=1 << 20)
    found = [blurred.predict(str(i), wide) for i in range(len(lengths))]
    assert kendalltau(lengths, [p.median for p in found]).statistic == pytest.approx(tau, abs=0.03) or tau == 0.0
    if tau < 1.0:
        covered = np.mean([n <= p.quantile(0.9) for n, p in zip(lengths, found, strict=True)])
        assert covered == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize(("tau", "median", "spread"), [(1.5, 100.0, 1.0), (0.5, 0.0, 1.0), (0.5, 100.0, 0.0)])
def test_a_blur_that_cannot_be_is_refused(tau: float, median: float, spread: float) -> None:
    with pytest.raises(ValueError, match="tau must be"):
        Blurred(lambda _: 1, tau=tau, median=median, spread=spread)


def test_the_histogram_starts_from_its_prior_and_learns_each_kind_apart() -> None:
    histogram, rng = Histogram(), np.random.default_rng(3)
    assert histogram.predict("a", TEXT).values == pytest.approx(CHAT.capped(512).values)
    for _ in range(800):
        histogram.learn(TEXT, int(rng.integers(190, 210)), stopped=True)
        histogram.learn(IMAGE, int(rng.integers(5, 9)), stopped=True)
    assert histogram.predict("a", TEXT).median == pytest.approx(200, rel=0.1)
    assert histogram.predict("a", IMAGE).median == pytest.approx(7, rel=0.25)
    other = Features(prompt_tokens=30, max_tokens=512, model="another")
    assert histogram.predict("a", other).median == pytest.approx(140)


def test_the_histogram_covers_what_it_has_seen() -> None:
    rng = np.random.default_rng(5)
    seen, then = (np.exp(rng.normal(4.5, 0.8, n)).round().clip(1).astype(int) for n in (3_000, 2_000))
    histogram, wide = Histogram(memory_answers=3_000), Features(prompt_tokens=1, max_tokens=1 << 20)
    for tokens in seen:
        histogram.learn(wide, int(tokens), stopped=True)
    prediction = histogram.predict("a", wide)
    for level in (0.1, 0.5, 0.9):
        assert np.mean(then <= prediction.quantile(level)) == pytest.approx(level, abs=0.04)
    assert prediction.mean == pytest.approx(seen.mean(), rel=0.1)


def test_the_histogram_forgets() -> None:
    histogram = Histogram(memory_answers=100)
    for tokens in (50, 400):
        for _ in range(500):
            histogram.learn(TEXT, tokens, stopped=True)
    assert histogram.predict("a", TEXT).quantile(0.05) > 300


def test_answers_that_were_cut_off_count_for_longer_ones() -> None:
    """Half stop at 20, half are cut off at 64: the median of what would have been lies beyond the cut."""
    histogram = Histogram(prior_answers=4)
    for _ in range(300):
        histogram.learn(TEXT, 20, stopped=True)
        histogram.learn(TEXT, 64, stopped=False)
    prediction = histogram.predict("a", TEXT)
    assert prediction.exceeds(64) == pytest.approx(0.5, abs=0.03)
    assert prediction.quantile(0.25) < 21


def test_the_histogram_is_bounded() -> None:
    histogram = Histogram(keys_max=3)
    for model in "abcde":
        histogram.learn(Features(prompt_tokens=1, max_tokens=9_999, model=model), 1_000, stopped=True)
    medians = [histogram.predict("x", Features(1, 9_999, model=model)).median for model in "abcde"]
    assert medians[:2] == pytest.approx([140, 140])
    assert min(medians[2:]) > 140


@pytest.mark.parametrize("bad", [{"memory_answers": 1.0}, {"prior_answers": 0.0}, {"keys_max": 0}])
def test_a_histogram_that_cannot_be_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="memory_answers"):
        Histogram(**bad)  # type: ignore[arg-type]


def test_features_of_a_request() -> None:
    meta = MediaMeta("image", "image/png", 32, 32, 100)
    sound = MediaMeta("audio", "audio/wav", 0, 0, 100, 1.0)
    media = (Media(meta, "s", 6), Media(sound, "t", 12), Media(meta, "u", 6))
    spans = (MediaSpan(0, 2, 6), MediaSpan(1, 9, 12), MediaSpan(2, 22, 6))
    prompt = Prompt(tuple(range(40)), spans, "media")
    request = Request("r", "t", "m", "interactive", 0.0, 9.0, prompt, media, Sampling(77), "g")
    found = of_request(request)
    assert found == Features(16, 77, "m", "interactive", (("audio", 1), ("image", 2)), 24)
    assert (found.media_parts, found.kind, TEXT.kind) == (3, "audio+image", "text")
