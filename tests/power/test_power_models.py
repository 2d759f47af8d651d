"""Models from telemetry: right on the plant with its noise, refused where they are not, fooled by no bad sensor."""

import numpy as np
import pytest

from headrace.control.constants import DGX_H100, H100
from headrace.control.layout import Layout
from headrace.control.plant import Plant, Weather
from headrace.core.power.models import Models, WorstCase
from headrace.core.power.regressions import Regressions
from headrace.core.power.templates import ENDPOINT_Z, HOURS, Templates, hour_of_week
from headrace.core.power.trust import DOUBTS, Bounds, Trust
from loadtest.reproduce.tapas_learning import sample

WORST = WorstCase(inlet_c=40.0, gpu_c=95.0, airflow_m3s=DGX_H100.airflow_m3s, server_w=8_400.0)
LAYOUT = Layout(2, 6)
SHAPE = (LAYOUT.servers, 8)


@pytest.fixture(scope="module")
def learnt() -> tuple[Models, Plant]:
    """Two days of five-minute means: weather, load and work move apart from one another."""
    rng, plant = np.random.default_rng(1), Plant(LAYOUT, H100, DGX_H100, seed=5)
    models = Models(*SHAPE, WORST)
    for step in range(2 * 288):
        weather = Weather(20 + 12 * np.sin(step / 60), 0.5 + 0.4 * np.sin(step / 23))
        base = rng.uniform(150, 650, (LAYOUT.servers, 1))
        seen = plant.step(np.clip(base * rng.uniform(0.8, 1.1, SHAPE), 125, 700), weather, 300.0)
        models.learn(sample(seen, weather, rng))
        if step % 48 == 47:
            models.solve()
    return models, plant


def test_models_are_within_a_degree_and_three_percent(learnt: tuple[Models, Plant]) -> None:
    models, _ = learnt
    assert models.refused == 0
    errors = models.errors()
    assert errors["gpu_c"].mean() < 1.0
    assert errors["inlet_c"].mean() < 1.0
    assert errors["server_w"].mean() < 0.03 * 5_000


def test_what_they_say_of_a_load_is_what_the_plant_does(learnt: tuple[Models, Plant]) -> None:
    models, plant = learnt
    weather, watts = Weather(28.0, 0.7), np.full(SHAPE, 500.0)
    for _ in range(3):
        seen = plant.step(watts, weather, 300.0)
    inlet = models.inlet_c(28.0, 0.7)
    assert inlet == pytest.approx(seen.inlet_c, abs=0.5)
    assert models.server_w(seen.gpu_w) == pytest.approx(seen.server_w, rel=0.03)
    assert models.airflow_m3s(seen.gpu_w) == pytest.approx(seen.airflow_m3s, rel=0.03)
    assert np.abs(models.gpu_c(inlet, seen.gpu_w) - seen.die_c).mean() < 1.5
    room_w = models.gpu_w_for(62.0, inlet).min(axis=1, keepdims=True)
    assert models.gpu_c(inlet, np.broadcast_to(room_w, SHAPE)).max(axis=1) == pytest.approx(62.0)


def test_before_it_has_learnt_it_says_the_worst_case() -> None:
    models = Models(3, 8, WORST)
    models.solve()
    assert (models.server_w(np.full((3, 8), 200.0)) == WORST.server_w).all()
    assert (models.gpu_c(np.full(3, 20.0), np.full((3, 8), 200.0)) == WORST.gpu_c).all()
    assert (models.gpu_w_for(80.0, np.full(3, 20.0)) == 0.0).all(), "no room where nothing is known"


def test_a_fit_that_does_not_hold_is_refused() -> None:
    """A server whose temperature follows nothing that is measured, beside one that behaves."""
    rng = np.random.default_rng(2)
    fits = Regressions((2,), 2, half_life=500, warm=20)
    for step in range(300):
        x = np.stack([np.ones(2), rng.uniform(0, 1, 2)], axis=-1)
        fits.learn(x, 40 + 20 * x[:, 1] + np.array([0.1, 8.0]) * rng.normal(size=2))
        if step % 50 == 49:
            fits.solve()
    assert fits.trusted(1.0).tolist() == [True, False]


def test_samples_that_are_not_believed_teach_nothing() -> None:
    fits = Regressions((2,), 1, half_life=100, warm=5)
    for step in range(60):
        value = np.array([3.0, np.nan if step % 2 else 3.0])
        fits.learn(np.ones((2, 1)), value, np.isfinite(value))
        fits.solve()
    assert fits.predict(np.ones((2, 1))) == pytest.approx([3.0, 3.0], rel=1e-3)


# --- templates ---


def test_a_template_is_the_hours_own_high_value() -> None:
    rng, templates = np.random.default_rng(3), Templates(2, worst=10_000.0)
    for week in range(3):
        for minute in range(0, HOURS * 60, 5):
            at_s = 60.0 * minute + week * HOURS * 3_600.0
            busy = 5_000.0 if 9 <= hour_of_week(at_s) % 24 < 17 else 2_000.0
            templates.learn(at_s, np.array([busy * (1 + 0.05 * rng.normal()), np.nan]))
        templates.fade()
    said = templates.of(0)
    assert said[9:17] == pytest.approx(5_000 * (1 + 2.33 * 0.05), rel=0.05)
    assert said[20:23] == pytest.approx(2_000 * (1 + 2.33 * 0.05), rel=0.05)
    assert (templates.of(1) == 10_000.0).all(), "nobody knows it: the worst case"
    assert (templates.of(1, like=0) == said).all()
    assert ENDPOINT_Z < 2.33


# --- trust ---


def test_what_cannot_be_believed_is_named_and_believed_again_after_a_while() -> None:
    trust, fresh = Trust(6, Bounds(stuck_readings=5, good_readings=3)), np.zeros(6)
    rng = np.random.default_rng(4)

    def look(temp: list[float], power: list[float], age: list[float]) -> list[str]:
        expected = np.array([60.0, 60, 60, 60, 60, 60])
        trust.look(np.array(temp), np.array(power), np.array(age), expected)
        return [DOUBTS[each] for each in trust.doubt]

    for _ in range(8):
        noisy = (300 + rng.normal(0, 5, 6)).tolist()
        said = look([60, np.nan, 400, 60, 61, 30], [*noisy[:4], 300.0, noisy[5]], [0, 0, 0, 9, 0, 0])
    assert said == ["", "not a number", "absurd", "stale", "stuck", "implausible"]
    waiting = [look([60.0] * 6, (300 + rng.normal(0, 5, 6)).tolist(), fresh.tolist()) for _ in range(3)]
    assert waiting[1] == said, "one good reading is not enough"
    assert waiting[2] == [""] * 6


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e9, -5.0])
def test_no_reading_whatever_it_is_passes_for_a_cool_gpu(bad: float) -> None:
    trust = Trust(1, Bounds())
    assert not trust.look(np.array([bad]), np.array([300.0]), np.zeros(1))[0]
    assert not Trust(1, Bounds()).look(np.array([60.0]), np.array([bad]), np.zeros(1))[0]
