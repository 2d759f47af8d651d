"""Thermal controllers: cool enough, no slower than they must be, and not fooled by a model that is off."""

import numpy as np
import pytest

from headrace.control.constants import H100
from headrace.control.thermal import CONTROLLERS, Observed
from headrace.control.thermal.base import LIMIT_C
from headrace.control.thermal.model import Estimator, HeatModel
from loadtest.benches.thermal_scene import MATCHED, Hour, Scene, run

MODELLED = ("kalman", "kalman-quick", "adaptive", "lqg", "hinf", "mpc")
# Up to and past the incident, from minute 25 on.
SCENE = Scene(1, (1, 2), MATCHED, 2_000)


@pytest.fixture(scope="module")
def hours() -> dict[str, Hour]:
    return {name: run(SCENE, make(H100, 2)) for name, make in CONTROLLERS.items()}


def test_the_scene_needs_a_controller(hours: dict[str, Hour]) -> None:
    assert hours["none"].figures()["over_limit_share"] > 0.01


@pytest.mark.parametrize("name", ["static", "rule", "pid", *MODELLED])
def test_everybody_keeps_the_limit_but_for_moments(hours: dict[str, Hour], name: str) -> None:
    assert hours[name].figures()["over_limit_share"] < 0.002


@pytest.mark.parametrize("name", MODELLED)
def test_who_has_a_model_waits_least(hours: dict[str, Hour], name: str) -> None:
    waits = {each: hour.figures()["queue_mean"] for each, hour in hours.items()}
    assert waits["none"] <= waits[name] <= min(waits["rule"], waits["pid"], waits["static"])


def test_a_cool_gpu_runs_at_full_speed() -> None:
    calm = Observed(*(np.full(3, value) for value in (50.0, 300.0, 0.0, 0.6, 1.0)))
    for name, make in CONTROLLERS.items():
        controller = make(H100, 3)
        for _ in range(30):
            speed = controller.act(calm)
        assert (speed == (1.0 if name != "static" else 0.85)).all(), name


def test_a_hot_gpu_is_slowed_down_by_all_that_look() -> None:
    hot = Observed(*(np.full(2, value) for value in (LIMIT_C + 6.0, 690.0, 9.0, 1.0, 1.0)))
    for name, make in CONTROLLERS.items():
        controller = make(H100, 2)
        for _ in range(30):
            speed = controller.act(hot)
        assert (speed < 0.9).all() or name == "none", name
        assert (speed >= H100.speed_least).all()


def test_the_filter_finds_an_inlet_that_nobody_measures() -> None:
    model = HeatModel(H100)
    estimator, x = Estimator(model, 1), np.array([45.0, 45.0, 36.0])
    for _ in range(300):
        x = model.a @ x + model.b * 500.0
        told = Observed(np.floor(x[:1]), *(np.full(1, value) for value in (500.0, 0.0, 1.0, 1.0)))
        state = estimator.follow(told)
    assert state[0, 2] == pytest.approx(36.0, abs=1.5)
