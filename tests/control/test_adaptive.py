"""Controllers for cooling that is not the kind's: the bank of filters finds it, and the limit holds meanwhile."""

from dataclasses import replace

import numpy as np
import pytest

from headrace.control.constants import H100
from headrace.control.randomised import FAILED_FAN, FAMILIES, TRAINED, draw
from headrace.control.thermal import CONTROLLERS, Observed
from headrace.control.thermal.adaptive import FACTORS, Adaptive
from headrace.control.thermal.base import LIMIT_C
from headrace.control.thermal.hinf import HInfinity
from headrace.control.thermal.lqg import Lqg
from headrace.control.thermal.model import HeatModel
from headrace.control.trial import run


def worked(controller: Adaptive, factor: float, seconds: int, seed: int, x: np.ndarray) -> np.ndarray:
    """A GPU of so much resistance draws what a changing load draws, far from the limit."""
    rng, model = np.random.default_rng(seed), HeatModel(replace(H100, sink_air_k_per_w=0.04 * factor))
    for second in range(seconds):
        power = 260.0 + 90.0 * np.sin(2 * np.pi * second / 120) + rng.normal(0.0, 40.0)
        x = model.a @ x + model.b * power
        told = np.floor(x[:1] + rng.normal(0.0, 0.4, 1))
        controller.act(Observed(told, *(np.full(1, value) for value in (power, 0.0, 1.0, 1.0))))
    return x


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.6, 2.5])
def test_it_finds_the_resistance(factor: float) -> None:
    controller = Adaptive(H100, 1)
    worked(controller, factor, 600, 1, np.array([45.0, 45.0, 27.0]))
    assert controller.factor[0] == pytest.approx(factor, rel=0.35)
    assert controller.belief.sum(axis=0) == pytest.approx(1.0)


def test_it_follows_a_resistance_that_changes() -> None:
    controller = Adaptive(H100, 1)
    x = worked(controller, 0.8, 600, 2, np.array([45.0, 45.0, 27.0]))
    before = float(controller.factor[0])
    worked(controller, 2.0, 300, 3, x)
    assert controller.factor[0] > 1.5 * before
    assert FACTORS[0] <= before <= FACTORS[-1]


def test_with_a_fan_that_fails_who_notices_is_hot_for_less_time() -> None:
    trial = draw(FAILED_FAN, tuple(range(201, 213)), 1_200)
    names = ("none", "kalman", "kalman-quick", "adaptive")
    hours = {name: run(trial, CONTROLLERS[name](H100, 12)) for name in names}
    over = {name: hour.figures()["over_limit_share"] for name, hour in hours.items()}
    assert over["none"] > 0.1
    assert over["adaptive"] <= over["kalman"] < 0.01
    assert max(over["adaptive"], over["kalman-quick"]) < 0.002
    assert hours["adaptive"].peak_c.max() < LIMIT_C + 1.5


def test_the_games_gain_is_above_the_regulators_and_becomes_it_without_an_adversary() -> None:
    model = HeatModel(H100)
    cautious, plain = HInfinity.gain(model), Lqg.gain(model)
    assert (cautious > plain).all()
    assert cautious == pytest.approx(plain, rel=0.5)


def test_a_seed_is_the_same_plant_whoever_draws_it_and_families_are_what_they_say() -> None:
    alone, among = draw(TRAINED, (7,), 300), draw(TRAINED, (5, 7), 300)
    assert (alone.work[:, 0] == among.work[:, 1]).all()
    assert alone.paths.sink_air[0, 0] == among.paths.sink_air[1, 0]
    liquid = draw(FAMILIES["liquid"], tuple(range(20)), 60)
    total = liquid.paths.die_sink + liquid.paths.sink_air
    assert total == pytest.approx(0.026, abs=0.003)
    assert (liquid.fans(np.full((20, 1), 300.0)) == 1.0).all()
    assert (draw(FAILED_FAN, (1, 2, 3), 600).air[-1] < min(TRAINED.incident_air)).all()
