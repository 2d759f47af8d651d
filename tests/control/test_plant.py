"""The plant: heat solved exactly, air that runs short, power that adds up; all against sums made another way."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.control import heat, power, sensing
from headrace.control.constants import A100, DGX_A100, DGX_H100, GPUS, H100, GpuKind, SensorKind, Spread
from headrace.control.heat import Paths
from headrace.control.layout import Layout
from headrace.control.plant import Bursts, Plant, Weather
from headrace.control.power import Mix

ONE = np.ones(1)
ALIKE = Spread(0.0, 0.0, 0.0, 0.0)


def integrated(
    kind: GpuKind, airflow: float, die: float, sink: float, watts: float, inlet: float, dt_s: float
) -> tuple[float, float, float]:
    """The same two nodes in steps of 2 ms: die, sink and the die's peak."""
    resistance, h, peak = kind.sink_air_k_per_w * airflow**-heat.AIR_EXPONENT, 0.002, die
    for _ in range(round(dt_s / h)):
        flow = (die - sink) / kind.die_sink_k_per_w
        die += h * (watts - flow) / kind.die_j_per_k
        sink += h * (flow - (sink - inlet) / resistance) / kind.sink_j_per_k
        peak = max(peak, die)
    return die, sink, peak


@given(
    kind=st.sampled_from([H100, A100]),
    airflow=st.floats(0.3, 1.0),
    die=st.floats(25.0, 90.0),
    cooler=st.floats(0.0, 20.0),
    watts=st.floats(50.0, 800.0),
    dt_s=st.sampled_from([0.5, 3.0, 15.0]),
)
def test_a_step_is_exact(kind: GpuKind, airflow: float, die: float, cooler: float, watts: float, dt_s: float) -> None:
    sink = die - cooler
    found = heat.step(Paths.of(kind, ONE), airflow * ONE, die * ONE, sink * ONE, watts * ONE, 28.0 * ONE, dt_s)
    expected = integrated(kind, airflow, die, sink, watts, 28.0, dt_s)
    assert [found.die[0], found.sink[0], found.peak[0]] == pytest.approx(expected, abs=0.03)


def test_a_peak_inside_a_step_is_seen() -> None:
    """A hot sink warms a cold die, then both cool: neither end of the step is the highest."""
    found = heat.step(Paths.of(H100, ONE), ONE, 40.0 * ONE, 70.0 * ONE, 100.0 * ONE, 25.0 * ONE, 60.0)
    assert found.peak[0] > max(40.0, found.die[0]) + 5.0


def test_one_step_is_many() -> None:
    paths, state = Paths.of(H100, ONE), heat.Heated(45.0 * ONE, 40.0 * ONE, ONE)
    whole = heat.step(paths, ONE, state.die, state.sink, 600.0 * ONE, 30.0 * ONE, 60.0)
    for _ in range(60):
        state = heat.step(paths, ONE, state.die, state.sink, 600.0 * ONE, 30.0 * ONE, 1.0)
    assert (state.die[0], state.sink[0]) == pytest.approx((whole.die[0], whole.sink[0]), abs=1e-9)


def test_a_burst_adds_what_it_would_add_to_a_settled_gpu() -> None:
    paths = Paths.of(H100, ONE)
    die, sink = heat.settled(paths, heat.sink_air(paths, ONE), 300.0 * ONE, 28.0 * ONE)
    held = heat.step(paths, ONE, die, sink, 700.0 * ONE, 28.0 * ONE, 5.0)
    assert die[0] + heat.burst_k(paths, ONE, 400.0 * ONE, 5.0 * ONE)[0] == pytest.approx(held.die[0], abs=1e-9)


# --- power ---


def test_half_the_power_costs_prefill_a_third_and_decode_nothing() -> None:
    """The one fact that the curve is fitted to: 1.30 x and 1.00 x at a 50 % cap."""
    speed = power.speed_under(H100, 350.0, H100.prefill_w)
    assert 1.0 / power.compute_rate(speed) == pytest.approx(1.30, abs=0.01)
    assert power.decode_rate(H100, power.speed_under(H100, 350.0, H100.decode_w)) == 1.0


@given(busy=st.floats(0.05, 1.0), share=st.floats(0.0, 1.0), cap_w=st.floats(150.0, 700.0))
def test_a_cap_is_kept_unless_the_least_speed_breaks_it(busy: float, share: float, cap_w: float) -> None:
    mix = Mix(busy * share * ONE, busy * (1 - share) * ONE, 0.0 * ONE)
    speed = power.speed_under(H100, cap_w, power.drawn_w(H100, mix, 1.0))
    drawn = power.drawn_w(H100, mix, speed)
    assert drawn[0] <= cap_w + 1e-6 or speed[0] == H100.speed_least
    assert speed[0] == 1.0 or speed[0] == H100.speed_least or drawn[0] == pytest.approx(cap_w)


def test_a_full_server_draws_what_was_measured() -> None:
    plant = Plant(Layout(2, 1), H100, DGX_H100, spread=ALIKE)
    seen = plant.step(np.full((2, 8), 696.0), Weather(20.0), 60.0)
    assert seen.server_w == pytest.approx(8_400.0, rel=0.01)


# --- air ---


def test_power_and_air_add_up_by_row_and_aisle() -> None:
    layout = Layout(4, 3)
    plant = Plant(layout, A100, DGX_A100, seed=3)
    seen = plant.step(np.random.default_rng(1).uniform(80, 400, (12, 8)), Weather(30.0), 60.0)
    assert seen.row_w == pytest.approx([seen.server_w[layout.row == row].sum() for row in range(4)])
    assert seen.aisle_airflow_m3s == pytest.approx([seen.airflow_m3s[:6].sum(), seen.airflow_m3s[6:].sum()])
    assert list(seen.short_of_air) == [0.0, 0.0]


def test_an_aisle_short_of_air_breathes_its_exhaust_and_heats_up_alone() -> None:
    def settle(given: float) -> tuple[np.ndarray, np.ndarray]:
        plant = Plant(Layout(4, 3), H100, DGX_H100, spread=ALIKE)
        plant.aisle_airflow_m3s = plant.aisle_airflow_m3s * np.array([given, 1.0])
        for _ in range(5):
            seen = plant.step(np.full((12, 8), 600.0), Weather(25.0), 60.0)
        return seen.inlet_c, seen.peak_c.max(axis=1)

    (inlet, die), (fresh_inlet, fresh_die) = settle(0.8), settle(1.0)
    assert (inlet[:6] > fresh_inlet[:6] + 1.0).all()
    assert (die[:6] > fresh_die[:6] + 1.0).all()
    assert inlet[6:] == pytest.approx(fresh_inlet[6:])


@pytest.mark.parametrize(("outside", "inlet"), [(-10, 18), (15, 18), (20, 21), (25, 24), (35, 27)])
def test_inlet_follows_the_weather_in_pieces(outside: float, inlet: float) -> None:
    plant = Plant(Layout(2, 1), H100, DGX_H100, spread=ALIKE)
    assert plant.inlet_c(Weather(outside, load=0.0)) == pytest.approx(inlet)


def test_gpus_of_one_server_differ_as_they_do() -> None:
    """Up to about 10 C under equal load [R]."""
    plant = Plant(Layout(2, 20), H100, DGX_H100, seed=1)
    for _ in range(10):
        seen = plant.step(np.full((40, 8), 650.0), Weather(20.0), 60.0)
    spread = seen.die_c.max(axis=1) - seen.die_c.min(axis=1)
    assert 4.0 < spread.mean() < 12.0
    assert 54.0 < seen.die_c.mean() < 72.0, "air-cooled H100 under load (2507.16781)"


def test_sensors_say_whole_degrees_and_are_right_on_average() -> None:
    rng = np.random.default_rng(0)
    said = sensing.temperature(SensorKind(), np.full(4_000, 70.3), rng)
    assert (said == np.floor(said)).all()
    assert said.mean() == pytest.approx(70.3 - 0.5, abs=0.05)
    assert sensing.power(SensorKind(), np.full(4_000, 500.0), rng).mean() == pytest.approx(500.0, rel=0.005)


@pytest.mark.parametrize(("rows", "problem"), [(3, "odd"), (0, "not above 0")])
def test_a_layout_that_cannot_be_is_refused(rows: int, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Layout(rows, 4)


def test_a_week_of_a_thousand_servers_takes_less_than_a_minute() -> None:
    """A week of one-minute steps is to take a minute at most (5 s when measured); here an hour of it."""
    plant = Plant(Layout(20, 50), GPUS["h100"], DGX_H100)
    watts = np.random.default_rng(0).uniform(120, 700, (1_000, 8))
    bursts = Bursts(np.full((1_000, 8), 700.0), np.full((1_000, 8), 4.0))
    began = time.process_time()
    for _ in range(60):
        plant.step(watts, Weather(20.0), 60.0, bursts)
    assert (time.process_time() - began) * 168 < 60.0
