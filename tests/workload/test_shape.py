"""Reshaping keeps order and does exactly what it says; the same seed reshapes the same way."""

import math
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.workload import shape
from headrace.workload.arrival import Arrival, Part
from headrace.workload.processes import Poisson
from headrace.workload.rates import ProcessError

gaps = st.lists(st.floats(0, 10, allow_nan=False), max_size=40)


def at(*times: float) -> list[Arrival]:
    return [Arrival(t, 10 + i, 5 + i) for i, t in enumerate(times)]


@st.composite
def streams(draw: st.DrawFn) -> list[Arrival]:
    return at(*np.cumsum(draw(gaps)).tolist())


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def times_of(arrivals: Iterator[Arrival]) -> list[float]:
    return [a.at_s for a in arrivals]


@given(st.lists(streams(), max_size=4))
def test_merging_keeps_all_and_their_order(several: list[list[Arrival]]) -> None:
    merged = list(shape.merge(*several))
    assert times_of(iter(merged)) == sorted(a.at_s for stream in several for a in stream)
    assert Counter(merged) == Counter(a for stream in several for a in stream)


KEEP_ORDER: dict[str, Callable[[list[Arrival]], Iterator[Arrival]]] = {
    "compress": lambda a: shape.compress(a, 3.7),
    "thin": lambda a: shape.thin(a, 0.5, rng(1)),
    "repeat": lambda a: shape.repeat(a, 2.5, 7.0, rng(1)),
    "scale up": lambda a: shape.scale(a, 1.3, rng(1)),
    "scale down": lambda a: shape.scale(a, 0.3, rng(1)),
    "window": lambda a: shape.window(a, 3.0, 50.0),
    "limit": lambda a: shape.limit(a, 7),
    "clip": lambda a: shape.clip(a, 12, 6, 1),
    "classes": lambda a: shape.classes(a, {"a": 1, "b": 3}, rng(1)),
    "models": lambda a: shape.models(a, {"m": 1}, rng(1)),
    "max_tokens": lambda a: shape.max_tokens(a, "factor", 2),
}


@settings(max_examples=30)
@given(stream=streams())
@pytest.mark.parametrize("name", KEEP_ORDER)
def test_order_stays_and_seeds_reproduce(name: str, stream: list[Arrival]) -> None:
    reshaped = list(KEEP_ORDER[name](stream))
    assert times_of(iter(reshaped)) == sorted(times_of(iter(reshaped)))
    assert reshaped == list(KEEP_ORDER[name](stream))


@pytest.mark.parametrize("factor", [0.2, 1.0, 1.5, 4.0])
def test_scaling_multiplies_the_rate_and_not_the_time(factor: float) -> None:
    base = [Arrival(t, 1, 1) for t in Poisson(10.0).times(rng(3), 2000.0)]
    scaled = list(shape.scale(base, factor, rng(4)))
    assert len(scaled) == pytest.approx(len(base) * factor, rel=0.05)
    assert scaled[-1].at_s == pytest.approx(2000, abs=61)


def test_compressing_shortens_the_time() -> None:
    assert times_of(shape.compress(at(0, 1, 5), 2)) == [0, 0.5, 2.5]


def test_copies_come_with_the_original_where_there_is_no_spread() -> None:
    assert times_of(shape.repeat(at(0, 1, 5), 3, 0.0, rng())) == [0, 0, 0, 1, 1, 1, 5, 5, 5]


def test_a_window_begins_its_clock_anew_and_stops_reading() -> None:
    def endless() -> Iterator[Arrival]:
        for i in range(100):
            assert i < 8, "read beyond the window"
            yield Arrival(float(i), 1, 1)

    assert times_of(shape.window(endless(), 3, 6.5)) == [0, 1, 2, 3]


def test_clipping_cuts_what_is_too_long_and_leaves_the_rest() -> None:
    long = Arrival(0, 1000, 300, (Part(), Part(), Part()), blocks=tuple(range(10)))
    short = Arrival(1, 10, 3)
    cut, same = shape.clip([long, short], 250, 100, 2)
    assert (cut.input_tokens, cut.output_tokens, len(cut.parts), cut.blocks) == (250, 100, 2, (0, 1, 2))
    assert same is short
    assert next(shape.clip([long])) is long


def test_classes_are_drawn_by_weight_and_only_where_none_is_said() -> None:
    plain = [Arrival(float(i), 1, 1) for i in range(20_000)]
    named = list(
        shape.classes([Arrival(0, 1, 1, slo_class="batch"), *plain], {"fast": 1, "never": 0, "slow": 3}, rng())
    )
    counts = Counter(a.slo_class for a in named)
    assert named[0].slo_class == "batch"
    assert counts["never"] == 0
    assert counts["fast"] / 20_000 == pytest.approx(0.25, abs=0.015)


def test_models_are_renamed_or_mixed() -> None:
    two = [Arrival(0, 1, 1, model="GPT-4"), Arrival(1, 1, 1, model="own")]
    assert [a.model for a in shape.rename_models(two, {"GPT-4": "llama-3-8b"})] == ["llama-3-8b", "own"]
    assert {a.model for a in shape.models(two, {"m": 2.0}, rng())} == {"m"}


@pytest.mark.parametrize(
    ("rule", "value", "expected"),
    [
        ("exact", 1, [(5, 5), (40, 40)]),
        ("factor", 1.5, [(5, 8), (40, 60)]),
        ("cap", 16, [(5, 16), (16, 16)]),
    ],
)
def test_max_tokens_rules(rule: str, value: float, expected: list[tuple[int, int]]) -> None:
    two = [Arrival(0, 1, 5), Arrival(1, 1, 40, max_tokens=100)]
    got = [(a.output_tokens, a.max_tokens) for a in shape.max_tokens(two, rule, value)]  # type: ignore[arg-type]
    assert got == expected


def test_parts_are_resized() -> None:
    half = shape.resize([Arrival(0, 1, 1, (Part(width=80, height=60, tokens=9),)), Arrival(1, 1, 1)], lambda p: Part())
    assert [a.parts for a in half] == [(Part(),), ()]


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: shape.compress(at(0), 0), "factor"),
        (lambda: shape.thin(at(0), 1.5, rng()), "keep"),
        (lambda: shape.repeat(at(0), 0.5, 1, rng()), "factor"),
        (lambda: shape.repeat(at(0), math.inf, 1, rng()), "factor"),
        (lambda: shape.window(at(0), 2, 1), "from_s"),
        (lambda: shape.classes(at(0), {}, rng()), "classes"),
        (lambda: shape.max_tokens(at(0), "cap", 0), "value"),
        (lambda: shape.max_tokens(at(0), "most", 1), "rule"),  # type: ignore[arg-type]
    ],
)
def test_impossible_parameters_are_named(make: Callable[[], Iterator[Arrival]], field: str) -> None:
    with pytest.raises(ProcessError, match=field):
        list(make())
