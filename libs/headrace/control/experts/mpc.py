"""Model-predictive control with bounded actions: a quadratic program over the next steps, each step solved anew.

From the Kalman predictor's state; beyond the horizon the regulator's cost to go. Solved by an accelerated projected
gradient (Beck and Teboulle 2009), for all episodes at once; where no bound is met it is the LQG.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from headrace.control.experts.kalman import Estimator, kalman
from headrace.control.tasks.base import Floats
from headrace.control.tasks.linear import LinearTask, Model
from headrace.control.tasks.regulator import regulator

HORIZON, ITERATIONS = 15, 60


@dataclass(frozen=True, slots=True)
class Program:
    """min u'Hu/2 + u'Fx over plans u; free: the plan without bounds, of x; bend: H's largest eigenvalue."""

    curvature: Floats  # H, [k m, k m]
    slope: Floats  # F, [k m, n]
    free: Floats
    bend: float

    @classmethod
    def of(cls, curvature: Floats, slope: Floats) -> "Program":
        free = -np.asarray(np.linalg.solve(curvature, slope), float)
        return cls(curvature, slope, free, float(np.linalg.eigvalsh(curvature)[-1]))


class Mpc:
    def __init__(self, task: LinearTask) -> None:
        self._task, self._gains = task, kalman(task.model, task.steps)
        values = regulator(task.model, task.rest, task.steps).values
        ends = [min(step + HORIZON, task.steps) for step in range(task.steps)]
        self._programs = [Program.of(*condensed(task.model, values[end], end - step)) for step, end in enumerate(ends)]

    def begin(self, envs: int) -> "Receding":
        estimator = Estimator(self._task.model, self._gains, envs)
        return Receding(estimator, iter(self._programs), self._task.action_most, self._task.actions)


class Receding:
    """Of each plan the first action is done."""

    def __init__(self, estimator: Estimator, programs: Iterator[Program], most: float, actions: int) -> None:
        self._estimator, self._programs, self._most, self._actions = estimator, programs, most, actions

    def act(self, seen: Floats) -> Floats:
        x, program = self._estimator.follow(seen), next(self._programs)
        plan = ahead = np.clip(x @ program.free.T, -self._most, self._most)
        linear, pace = x @ program.slope.T, 1.0
        for _ in range(ITERATIONS if np.abs(plan).max() >= self._most else 0):
            down = (ahead @ program.curvature + linear) / program.bend
            new = np.clip(ahead - down, -self._most, self._most)
            pace, before = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * pace**2)), pace
            ahead, plan = new + (before - 1.0) / pace * (new - plan), new
        return plan[:, : self._actions]

    def done(self, actions: Floats, costs: Floats) -> None:
        self._estimator.done(actions)


def condensed(model: Model, terminal: Floats, ahead: int) -> tuple[Floats, Floats]:
    """The quadratic form of a plan of actions: built backwards, one step in front of the others at a time."""
    value, slope, curvature = terminal, np.zeros((0, len(model.a))), np.zeros((0, 0))
    for _ in range(ahead):
        own = model.r + model.b.T @ value @ model.b
        beside = slope @ model.b  # of later actions with this one
        curvature = np.block([[own, beside.T], [beside, curvature]])
        slope = np.vstack([model.b.T @ value @ model.a + model.s.T, slope @ model.a])
        value = model.q + model.a.T @ value @ model.a
    return curvature, slope
