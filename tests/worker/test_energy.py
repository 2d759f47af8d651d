"""Measured energy: readings once a second, requests that end in between, and nothing lost or invented."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.worker.energy import MEND_S, Measured

IDLE_W, BUSY_W = 100.0, 600.0


def second(meter: Measured, busy_s: float, watts: float = BUSY_W, pieces: int = 4) -> tuple[float, float]:
    """Charged and idle in a second with so much computing."""
    charged_j = sum(meter.spend(busy_s / pieces) for _ in range(pieces))
    idle_j, busy = meter.read(busy_s * watts + (1 - busy_s) * IDLE_W, 1.0)
    assert busy == pytest.approx(busy_s)
    return charged_j, idle_j


def test_nothing_is_charged_before_anything_is_known() -> None:
    meter = Measured()
    assert second(meter, 0.0) == (0.0, IDLE_W)
    charged_j, idle_j = second(meter, 0.5)
    assert charged_j == 0.0
    assert idle_j == pytest.approx(IDLE_W / 2)
    assert second(meter, 0.5)[0] > 0


def test_what_was_charged_too_little_is_made_up_for() -> None:
    meter = Measured()
    second(meter, 0.0)
    seconds = [second(meter, 0.5) for _ in range(200)]
    charged_j = sum(charged for charged, _ in seconds)
    assert charged_j == pytest.approx(200 * 0.5 * BUSY_W, rel=0.01)
    assert sum(idle for _, idle in seconds) == pytest.approx(200 * 0.5 * IDLE_W)
    assert max(charged for charged, _ in seconds) < 0.5 * BUSY_W * 1.51, "but slowly: nobody pays for the others"


def test_before_it_has_ever_idled_time_alone_tells_whose_it_is() -> None:
    meter = Measured()
    for _ in range(100):
        charged_j, idle_j = second(meter, 0.5)
    assert idle_j == pytest.approx(0.25 * (BUSY_W + IDLE_W))
    assert charged_j == pytest.approx(0.25 * (BUSY_W + IDLE_W), rel=0.02)


def test_without_a_reading_nothing_is_charged() -> None:
    meter = Measured()
    for _ in range(5):
        charged_j = meter.spend(0.5)
        meter.read(0.0, 1.0)
    assert charged_j == 0.0


@settings(max_examples=60, deadline=None)
@given(loads=st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(300.0, 700.0)), min_size=10, max_size=60))
def test_charged_idle_and_what_is_owed_add_up(loads: list[tuple[float, float]]) -> None:
    meter = Measured()
    charged_j = idle_j = energy_j = 0.0
    for busy_s, watts in loads:
        charged, idle = second(meter, busy_s, watts)
        charged_j, idle_j = charged_j + charged, idle_j + idle
        energy_j += busy_s * watts + (1 - busy_s) * IDLE_W
        assert meter.watts <= 1.5 * 800.0, "bounded, whatever is owed"
    owed_j = energy_j - idle_j - charged_j
    assert owed_j == pytest.approx(meter._carry_j, abs=1e-6)
    assert abs(owed_j) < 2 * MEND_S * 800.0
