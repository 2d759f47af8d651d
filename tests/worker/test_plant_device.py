"""The plant that a profile's worker plays: what it draws, how fast it runs under a cap, how warm it gets."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.control.constants import A100, H100
from headrace.control.power import decode_rate, speed_under
from headrace.worker.plant import LATE_S, TICK_S, Plant, plant_of

INLET_C = 25.0


def plant(gpus: int = 1, inlet_c: float = INLET_C) -> Plant:
    return Plant(H100, gpus, inlet_c, "prefill-0", now_s=0.0)


def work(plant: Plant, stage: str, start_s: float, full_speed_s: float) -> tuple[float, float]:
    """Returns when it ends, and what is charged for it."""
    gear = getattr(plant, stage)
    took_s = full_speed_s / gear.rate
    return start_s + took_s, plant.run(gear, took_s, start_s + took_s)


def keep_busy(plant: Plant, stage: str, start_s: float, until_s: float, step_s: float = 0.05) -> float:
    while start_s < until_s:
        start_s, _ = work(plant, stage, start_s, step_s)
    return start_s


@pytest.mark.parametrize("cap_w", [0.0, 150.0, 300.0, 500.0, 650.0, 900.0])
def test_a_cap_slows_each_stage_by_the_power_law(cap_w: float) -> None:
    one = plant()
    one.cap(cap_w)
    for gear, full_w in ((one.prefill, H100.prefill_w), (one.encode, H100.encode_w), (one.decode, H100.decode_w)):
        speed = float(speed_under(H100, cap_w, full_w)) if cap_w else 1.0
        assert gear.speed == pytest.approx(speed)
        assert gear.watts <= max(cap_w or math.inf, 136.0) + 1e-9, "or the least that it can draw"
    assert one.prefill.rate == one.prefill.speed
    assert one.decode.rate == pytest.approx(float(decode_rate(H100, one.decode.speed)))


def test_half_the_power_costs_prefill_a_third_and_decode_nothing() -> None:
    one = plant()
    one.cap(350.0)
    assert 1.2 < 1 / one.prefill.rate < 1.4
    assert one.decode.rate == 1.0


def test_a_cap_shows_in_the_next_second() -> None:
    one = plant()
    end_s = keep_busy(one, "prefill", 0.0, 3.0)
    assert one.reading(end_s).power_w == pytest.approx(700.0, rel=0.12)  # noise of 3 %
    one.cap(300.0)
    end_s = keep_busy(one, "prefill", end_s, end_s + 1.3)
    told = one.reading(end_s)
    assert told.power_w == pytest.approx(300.0, rel=0.12)
    assert (told.cap_w, told.kind, told.gpus) == (300.0, "h100", 1)
    assert told.busy == pytest.approx(1.0)
    assert told.full_w == pytest.approx(700.0)
    assert told.speed == pytest.approx(one.prefill.speed)
    assert 0 < told.cap_least_w < 300.0 < told.cap_most_w


def test_one_that_idles_draws_its_context() -> None:
    one = plant(gpus=2)
    told = one.reading(10.0)
    assert told.power_w == pytest.approx(H100.context_w, rel=0.12)
    assert (told.busy, told.full_w, told.speed) == (0.0, H100.context_w, 1.0)
    assert told.energy_j == pytest.approx(2 * H100.context_w * 10.0, rel=0.02)
    assert one.idle_j == pytest.approx(one.energy_j)


@pytest.mark.parametrize("step_s", [0.004, 0.3, 1.5])
def test_the_hardware_keeps_below_its_hard_limit(step_s: float) -> None:
    """On air so hot that full speed would end at 90 C; long iterations are slowed down in their middle."""
    one = plant(inlet_c=50.0)
    end_s, peak_c, throttled = 0.0, 0.0, False
    while end_s < 240.0:
        end_s = keep_busy(one, "prefill", end_s, end_s + 1e-9, step_s)
        one.advance(end_s)
        peak_c, throttled = max(peak_c, one.die_c), throttled or one.prefill.rate < 1
    assert throttled
    assert H100.hard_limit_c - 3.0 < peak_c <= H100.hard_limit_c


def test_what_the_hardware_slows_down_is_not_charged() -> None:
    """An iteration that was told before it got too hot: the next ones cost less by what it did not take."""
    one, charged_j, end_s = plant(inlet_c=75.0), 0.0, 0.0
    for _ in range(20):
        end_s, joules = work(one, "prefill", end_s, 1.5)
        charged_j += joules
        one.advance(end_s)
    one.advance(end_s + 1.0)
    assert charged_j > 0.9 * one.kind.context_w * end_s
    assert charged_j + one.idle_j == pytest.approx(one.energy_j, rel=0.005)


def test_on_cool_air_nothing_is_throttled() -> None:
    one = plant()
    keep_busy(one, "prefill", 0.0, 240.0)
    one.advance(240.0)
    assert one.prefill.rate == 1.0
    assert one.die_c < H100.soft_limit_c


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["prefill", "decode", "encode"]),
        st.floats(0.0005, 2.0),
        st.floats(0.0, 1.0),  # rest before it
        st.sampled_from([0.0, 0.0, 200.0, 450.0]),
        st.booleans(),  # whether somebody reads
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, gpus=st.integers(1, 8), inlet_c=st.sampled_from([20.0, 75.0]))
def test_what_is_charged_and_what_idles_is_what_the_device_took(
    steps: list[tuple[str, float, float, float, bool]], gpus: int, inlet_c: float
) -> None:
    """Also where iterations are told late, caps come and go, and the hardware throttles."""
    one, at_s, charged_j = plant(gpus, inlet_c), 0.0, 0.0
    for stage, step_s, rest_s, cap_w, reads in steps:
        one.cap(cap_w)
        at_s, joules = work(one, stage, at_s + rest_s, step_s)
        charged_j += joules
        if reads:
            one.advance(at_s + 5 * LATE_S)  # the next one may begin before this
    at_s += TICK_S
    one.advance(at_s + TICK_S + LATE_S)
    assert charged_j + one.idle_j - one._owed_j == pytest.approx(one.energy_j, rel=1e-6)
    assert one._owed_j >= 0
    assert charged_j > 0


@pytest.mark.parametrize(
    ("spoken", "gpu", "gpus", "found"),
    [
        ("", "h100", 1, (H100, 1)),
        ("", "a100", 8, (A100, 8)),
        ("", "a10", 1, None),  # nobody knows its heat path
        ("", "", 1, None),
        ("off", "h100", 1, None),
        ("a100x4", "", 1, (A100, 4)),
        ("h100", "a100", 8, (H100, 1)),
    ],
)
def test_which_gpus_are_played(spoken: str, gpu: str, gpus: int, found: object) -> None:
    assert plant_of(spoken, gpu, gpus) == found


@pytest.mark.parametrize("spoken", ["h200", "h100x", "h100x0", "h100xa", "h100x65"])
def test_no_such_gpu(spoken: str) -> None:
    with pytest.raises(ValueError, match="must be off"):
        plant_of(spoken, "", 1)


def test_the_counter_is_as_of_now_between_ticks_too() -> None:
    """Readings that come as they like: their differences are the watts, to a percent."""
    one, now_s, counters = plant(), 0.0, list[tuple[float, float]]()
    for _ in range(40):
        one.run(one.prefill, 0.37, now_s + 0.37)
        now_s += 0.37
        counters.append((now_s, one.reading(now_s).energy_j))
    for (before_s, before_j), (after_s, after_j) in pairwise(counters[4:]):
        assert after_j - before_j == pytest.approx(H100.prefill_w * (after_s - before_s), rel=0.01)
