"""Pictures that many ask about: how often simulated encoders need not compute, and what that does to the wait."""

from dataclasses import replace

import numpy as np
import pytest

from headrace.sim.result import Result
from headrace.sim.run import Run
from headrace.workload.fleet import Incident, PoolSpec
from headrace.workload.multimodal import Multimodal
from headrace.workload.open import Generated
from headrace.workload.repeats import Repeats
from tests.sim.scenes import LLAVA, SEPARATED, scene

POOL = 40


def fleet(cache_mb: int, encoders: int = 2) -> tuple[PoolSpec, ...]:
    encode, *others = SEPARATED
    return (replace(encode, encoder_cache_mb=cache_mb, count=encoders), *others)


def asked(repeats: Repeats, rate_rps: float = 6.0) -> Generated:
    source = Multimodal(rate_rps=rate_rps, image_share=0.7, profile="flat", bursty=False)
    return Generated(source, repeats=repeats)


def run(
    repeats: Repeats, cache_mb: int, *, incidents: tuple[Incident, ...] = (), encoders: int = 2, **settings: object
) -> Result:
    about = scene(fleet(cache_mb, encoders), asked(repeats), model=LLAVA, duration_s=60.0, incidents=incidents)
    one = Run(about, "fcfs", 1, settings=settings)
    one.go()
    return one.result(1.0)


def counted(result: Result) -> tuple[float, float]:
    return tuple(result.counters.get(f"encoder_cache_{name}", 0.0) for name in ("hits", "misses"))  # type: ignore[return-value]


def ttft_s(result: Result) -> np.ndarray:
    requests = result.requests
    media = (requests.media_parts > 0) & requests.finished
    return (requests.first_token_s - requests.arrival_s)[media]


@pytest.fixture(scope="module")
def zipf() -> tuple[Result, Result]:
    """Without and with a cache; the same requests."""
    repeats = Repeats(share=0.6, pool=POOL, zipf=0.8)
    return run(repeats, 0), run(repeats, 2048)


def test_each_picture_of_a_pool_is_encoded_once(zipf: tuple[Result, Result]) -> None:
    without, with_cache = zipf
    hits, misses = counted(with_cache)
    assert misses <= POOL + 2, "affinity: hardly any is encoded at both encoders"
    assert hits / (hits + misses) > 0.8
    assert counted(without) == (0, 0)
    assert with_cache.counters["encoded_parts"] == without.counters["encoded_parts"] - hits


def test_the_first_token_comes_sooner(zipf: tuple[Result, Result]) -> None:
    without, with_cache = (ttft_s(result) for result in zipf)
    assert len(without) == len(with_cache)
    assert with_cache.mean() < 0.95 * without.mean()
    assert np.median(with_cache) < 0.92 * np.median(without)


def test_without_affinity_encoders_learn_the_same_pictures_each_for_itself() -> None:
    repeats = Repeats(share=0.6, pool=POOL, zipf=0.8)
    (near, _), (scattered, _) = (
        counted(run(repeats, 2048, encoders=4, affinity_contents_max=most)) for most in (16_384, 0)
    )
    assert near > 1.1 * scattered


def test_a_cache_that_holds_few_hits_seldom() -> None:
    repeats = Repeats(share=1.0, pool=1000, zipf=0.8)
    (few, _), (many, _) = counted(run(repeats, 64)), counted(run(repeats, 4096))
    assert 0 < few < many / 2


def test_where_no_picture_has_a_name_nothing_repeats() -> None:
    one, other = (run(Repeats(), cache_mb) for cache_mb in (0, 2048))
    assert counted(other) == (0, 0)
    for name in ("dispatch_s", "first_token_s", "end_s"):
        assert np.array_equal(getattr(one.requests, name), getattr(other.requests, name), equal_nan=True), name


@pytest.mark.parametrize("kind", ["kill", "stop"])
def test_who_loses_its_encoder_is_answered_all_the_same(kind: str) -> None:
    """The run itself asserts that everything ends once and nothing is held (World.check_quiet)."""
    befalls = (Incident(20.0, kind, "encode-0", seconds=4.0),)  # type: ignore[arg-type]
    result = run(Repeats(share=0.8, pool=20, zipf=1.0), 2048, incidents=befalls)
    hits, misses = counted(result)
    assert (~result.requests.finished).sum() == result.counters["too_long_for_the_context"]
    assert misses >= 20
    assert hits > misses
