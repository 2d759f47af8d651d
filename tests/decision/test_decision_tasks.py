"""Re-stated tasks against recorded runs of controlgym 1.0.0; experts against what theory says of them."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from headrace.control.experts import THERMAL, expert
from headrace.control.experts.hinf import game
from headrace.control.experts.kalman import Estimator, kalman
from headrace.control.experts.lqg import Lqg
from headrace.control.experts.mpc import condensed
from headrace.control.tasks import CONVECTION, RELATIVES, TASKS, LinearTask, Model, play, relative, task
from headrace.control.tasks.fields import STATES, Wave, bump
from headrace.control.tasks.linear import LinearWorld, stage_cost

RECORDED = Path(__file__).parent / "controlgym.npz"
PAIRS = [
    ("he1", "he1"),
    ("ac3", "ac3"),
    ("cm1", "cm1"),
    (CONVECTION, "convection"),
    ("wave", "wave"),
    ("he4", "he4"),
    ("ac10", "ac10"),
    ("cm2", "cm2"),
    (f"{CONVECTION}_changed", "convection_changed"),
]
LINEAR = [name for name in TASKS if name != "thermal"]


def linear(name: str) -> LinearTask:
    found = next(one for one in (*map(task, TASKS), *map(relative, RELATIVES)) if one.name == name)
    assert isinstance(found, LinearTask)
    return found


@pytest.mark.parametrize(("name", "recorded"), PAIRS)
def test_a_task_moves_as_controlgym_does(name: str, recorded: str) -> None:
    own = linear(name)
    with np.load(RECORDED) as told:
        of = {key.removeprefix(f"{recorded}."): told[key] for key in told.files if key.startswith(f"{recorded}.")}
    noises = of.get("noises", np.zeros((len(of["actions"]), own.model.d.shape[1])))
    first_noise = np.zeros((1, noises.shape[1]))
    world = LinearWorld(own, of["first"][None], np.concatenate([first_noise, noises])[:, None])
    for step, action in enumerate(of["actions"]):
        before, stepped = world.state, world.step(action[None])
        size = max(1.0, float(np.abs(of["seen"]).max()))
        np.testing.assert_allclose(stepped.seen[0], of["seen"][step], atol=1e-8 * size)
        cost = stage_cost(own.model, before, action[None])[0]
        np.testing.assert_allclose(cost, -of["rewards"][step], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(world.state[0], of["last"], atol=1e-8 * float(np.abs(of["last"]).max()))


def test_fields_begin_with_controlgyms_bump() -> None:
    with np.load(RECORDED) as told:
        np.testing.assert_allclose(bump(np.arange(STATES) / STATES, 1.05, 0.045), told["convection.first"], atol=1e-12)


@pytest.mark.parametrize("name", ["he1", "ac3", "cm1", "he4"])
def test_lqg_costs_what_the_riccati_equations_say(name: str) -> None:
    own = linear(name)
    solved, seeds = Lqg(own, own.model), range(1_000)
    total = play(own, solved.begin(len(seeds)), seeds).total
    error = total.std(ddof=1) / np.sqrt(len(seeds))
    assert solved.bound() < solved.expected_cost()
    assert abs(total.mean() - solved.expected_cost()) < 3.5 * error


def test_the_filter_does_not_know_the_first_state() -> None:
    """Two first states that look the same are estimated the same; what is told of them is the prior."""
    own = linear("ac3")
    hidden = np.array([0.0, 0.0, 1.0, -1.0])
    assert not (own.model.c @ hidden).any()
    estimator = Estimator(own.model, kalman(own.model, own.steps), 2)
    assert (estimator.x == own.model.mean).all()
    states = np.stack([np.full(4, 0.3), np.full(4, 0.3) + hidden])
    followed = estimator.follow(states @ own.model.c.T)
    np.testing.assert_array_equal(followed[0], followed[1])


def test_a_filter_learns_from_its_sensor_the_noise_that_drives_the_plant() -> None:
    """x' = 0.9 x + w, y = x + w: who knows that it is the same w knows x in the end; who does not never does."""
    one = np.eye(1)
    model = Model(0.9 * one, one, one, one, one, one, one, 0.0 * one, noise_var=1.0, mean=np.zeros(1), cov=one)
    own = LinearTask("scalar", model, lambda rng: rng.normal(size=1), 40, np.inf, np.inf, rest=one)
    world, estimator = own.world(range(50)), Estimator(model, kalman(model, own.steps), 50)
    seen, still = world.first(), np.zeros((50, 1))
    for _ in range(30):
        before = world.state.copy()
        estimator.follow(seen)
        estimator.done(still)
        seen = world.step(still).seen
    np.testing.assert_allclose(estimator.x, before, atol=1e-3)


@pytest.mark.parametrize("name", ["he1", "cm1"])
def test_no_expert_beats_the_lqg_on_its_own_model(name: str) -> None:
    own, seeds = linear(name), range(500, 700)
    cost = {
        each: play(own, expert(each, own).begin(200), seeds).total.mean() for each in ("none", "lqg", "hinf", "mpc")
    }
    assert min(cost, key=lambda each: cost[each]) in ("lqg", "mpc")
    assert cost["none"] > 1.3 * cost["lqg"]
    assert cost["mpc"] == pytest.approx(cost["lqg"], rel=1e-6)  # no bound is met


def test_a_search_finds_a_pid_that_is_better_than_nothing() -> None:
    own, seeds = linear("cm1"), range(500, 600)
    cost = {each: play(own, expert(each, own).begin(100), seeds).total.mean() for each in ("none", "pid")}
    assert cost["pid"] < 0.8 * cost["none"]


def test_without_an_adversary_h_infinity_is_the_lqg() -> None:
    own = linear("ac3")
    gains = game(own, 1e6)
    assert gains is not None
    solved = Lqg(own, own.model)
    np.testing.assert_allclose(gains, solved._regulator.gains, rtol=1e-4, atol=1e-6)
    assert game(own, 0.1) is None  # he can do any harm


def test_a_bounded_plan_keeps_its_bounds_and_is_the_best_there_is() -> None:
    own = linear("cm1")
    curvature, slope = condensed(own.model, own.rest, 3)
    x = 3.0 * np.random.default_rng(0).standard_normal(20)
    by_hand = 0.0
    plan = np.array([0.4, -0.2, 0.1])
    state = x
    for action in plan:
        by_hand += float(stage_cost(own.model, state[None], np.array([[action]]))[0])
        state = own.model.a @ state + own.model.b @ [action]
    by_hand += float(state @ own.rest @ state)
    free = x
    idle = 0.0
    for _ in plan:
        idle += float(stage_cost(own.model, free[None], np.zeros((1, 1)))[0])
        free = own.model.a @ free
    idle += float(free @ own.rest @ free)
    assert by_hand - idle == pytest.approx(float(plan @ curvature @ plan + 2.0 * plan @ slope @ x), rel=1e-6)


def test_actions_are_clipped_and_seeds_decide_everything() -> None:
    own = linear("he1")

    class Wild:
        def act(self, seen: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.full((len(seen), 2), 1e9)

        def done(self, actions: NDArray[np.float64], costs: NDArray[np.float64]) -> None:
            assert (actions == own.action_most).all()

    alone, beside = play(own, Wild(), [3]), play(own, Wild(), [1, 2, 3])
    np.testing.assert_allclose(alone.costs[0], beside.costs[2], rtol=1e-12)


@pytest.mark.parametrize("name", THERMAL[1:])
def test_thermal_controllers_keep_a_hot_gpu_cooler_than_none(name: str) -> None:
    own, seeds = task("thermal"), range(4)
    if name == "mpc":
        seeds = range(1)
    calm = play(own, expert(name, own).begin(len(seeds)), seeds)
    none = play(own, expert("none", own).begin(len(seeds)), seeds)
    assert calm.violated.sum() <= none.violated.sum()
    assert ((calm.actions >= 0.35) & (calm.actions <= 1.0)).all()


def test_thermal_costs_are_the_specs_reward_but_for_the_work_that_came() -> None:
    own = task("thermal")
    world = own.world([5])
    world.first()
    queue, total = float(world.queue[0]), 0.0  # type: ignore[attr-defined]
    for _ in range(own.steps):
        total += float(world.step(np.full((1, 1), 0.35)).cost[0])
    assert total > float(world.queue[0]) - queue > 0.0  # type: ignore[attr-defined]


def test_waves_neither_grow_nor_die() -> None:
    sizes = np.abs(np.linalg.eigvals(Wave().model().a))
    np.testing.assert_allclose(sizes, 1.0, atol=1e-5)
