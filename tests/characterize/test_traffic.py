"""A trace's curves and tables: against traffic whose answers are known."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from headrace.characterize import trace, traffic
from headrace.workload.arrival import Arrival, Part
from headrace.workload.traces import Tally, load, save


def poisson(seed: int, rate_rps: float, seconds: float) -> list[float]:
    rng = np.random.default_rng(seed)
    return [float(at) for at in np.cumsum(rng.exponential(1 / rate_rps, int(rate_rps * seconds * 1.2)))]


def test_steps_of_a_distribution() -> None:
    counts = Counter({1: 6, 4: 3, 100: 1})
    assert [value for value, _ in traffic.cdf(counts)] == [1.0, 4.0, 100.0]
    assert [share for _, share in traffic.cdf(counts)] == pytest.approx([60.0, 90.0, 100.0])
    assert [traffic.quantile(counts, p) for p in (0.1, 0.6, 0.61, 0.9, 0.99)] == [1, 1, 4, 4, 100]


def test_a_long_distribution_keeps_its_ends() -> None:
    points = traffic.cdf(Counter(dict.fromkeys(range(1, 10001), 1)))
    assert len(points) <= traffic.POINTS
    assert points[0][0] == 1.0
    assert points[-1] == pytest.approx((10_000.0, 100.0))


def test_rate_counts_everybody() -> None:
    times = np.array([0.0, 1.0, 2.0, 3.0, 50.0, 90.0, 95.0, 100.0])
    points = traffic.rate(times, 100.0)
    assert sum(value for _, value in points) * 100.0 / len(points) == pytest.approx(len(times))


def test_cv_by_window_tells_regular_from_poisson_from_bursty() -> None:
    regular = np.arange(0.0, 1000.0, 0.1)
    random = np.array(poisson(1, 10, 1000))
    bursty = np.sort(np.concatenate([np.arange(0.0, 1000.0, 1.0) + 0.001 * n for n in range(10)]))
    of = [np.mean([value for _, value in traffic.cv(times, 60.0)]) for times in (regular, random, bursty)]
    assert of[0] == pytest.approx(0.0, abs=1e-6)
    assert of[1] == pytest.approx(1.0, abs=0.1)
    assert of[2] > 2.5
    assert traffic.window_s(random, 1000.0) == 10.0
    assert traffic.window_s(random[:10], 1000.0) == 0.0
    assert traffic.cv(random, 0.0) == []


def test_autocorrelation_finds_the_period() -> None:
    """Requests in every other block of ten minutes: like itself after 20 minutes, unlike after 10."""
    times = np.array([at for at in np.arange(0.0, 5 * 3600.0, 2.0) if int(at // 600) % 2])
    points = dict(traffic.autocorrelation(times, 5 * 3600.0))
    assert points[1200.0] > 0.8
    assert points[600.0] < -0.8


def small(path: Path) -> None:
    """Four hours of an image request every other second, text in between, in Headrace's own format."""
    part = Part("image", 500, 400, 0.0, 90)

    def at(second: int) -> Arrival:
        if second % 2:
            return Arrival(float(second), 100, 20)
        return Arrival(float(second), 10 + second % 90, 5, (part,) * (4 if second % 4 == 0 else 1))

    save(map(at, range(4 * 3600)), path)


def test_a_trace_with_images_stands_beside_modserves(tmp_path: Path) -> None:
    small(tmp_path / "small.jsonl")
    tally = Tally()
    stats, seen = traffic.look(load(tmp_path / "small.jsonl", "headrace", tally=tally))
    assert seen.kinds == ["all", "image", "text"]
    assert seen.images == Counter({1: 3600, 4: 3600})
    assert seen.context["text"] == Counter({100: 7200})
    assert min(seen.context["image"]) >= 100, "what is told of images counts"
    said = trace.document("small", stats, seen, tally)
    assert [section.name for section in said.sections] == ["arrivals", "sizes", "modserve"]
    assert {section.origin for section in said.sections} == {"counted"}
    mix = {row[0]: row[1:] for row in said.sections[2].tables[1].rows}
    assert mix["image requests with 4 images"] == ("50.0 %", "5.4 %, clipped to 16 [M/I]")
    assert mix["requests with images"][0] == "50.0 %"
    assert said.data["shares"] == {"image": 0.5, "text": 0.5}
    assert said.data["context_tokens"]["text"]["p50"] == 100
    assert said.data["arrivals"]["all"]["gap_cv"] == pytest.approx(0.0, abs=1e-9)
    titles = [figure.title for section in said.sections for figure in section.figures]
    assert titles[:2] == ["Request rate", "CV of the gaps, windows of 1 min"]
    assert "Images of a request that has some" in titles


def test_text_alone_needs_no_images(tmp_path: Path) -> None:
    save([Arrival(at, 100, 10) for at in poisson(3, 2.0, 200.0)], tmp_path / "text.jsonl")
    stats, seen = traffic.look(load(tmp_path / "text.jsonl", "headrace"))
    said = trace.document("text", stats, seen, Tally())
    assert seen.kinds == ["text"]
    assert "image" not in {row[0].partition(",")[0] for row in said.sections[2].tables[0].rows}


def test_two_requests_are_enough_for_a_page() -> None:
    stats, seen = traffic.look([Arrival(0.0, 10, 1), Arrival(2.0, 10, 1)])
    assert trace.document("two", stats, seen, Tally()).data["requests"] == 2
