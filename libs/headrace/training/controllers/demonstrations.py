"""Demonstrations for learnt thermal controllers: what four controllers do on randomised plants, and how well it ends.

In half of the episodes what they say is not what is done: a disturbance is added to the speed, and what they say to
that is learnt. A network that only saw undisturbed episodes would not know the way back from its own errors.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headrace.control.constants import H100
from headrace.control.power import Floats
from headrace.control.randomised import TRAINED, draw
from headrace.control.thermal.base import LIMIT_C, Observed, ThermalController, bounded
from headrace.control.thermal.context import FEATURES, SECONDS, Singles, features, steps
from headrace.control.thermal.kalman_budget import KalmanBudget
from headrace.control.thermal.lqg import Lqg
from headrace.control.thermal.mpc import Mpc
from headrace.control.trial import Acts, Hour, Trial, run

# A governor's episode has no end: a return is the mean reward of the five minutes to come.
HORIZON_S = 300
EPISODE_S = 1_800
DISTURBED = 0.5  # of the episodes
DISTURBANCE, KEEP = 0.05, 0.95  # its standard deviation, and what is left of it a second later


@dataclass(frozen=True, slots=True)
class Demonstrations:
    """[episode, second, ...]."""

    seconds: Singles  # features of control.thermal.context
    said: Singles  # the speed that the demonstrator wants next
    returns: Singles  # of what was done
    who: tuple[str, ...]

    def windows(self, episode: NDArray[np.int64], second: NDArray[np.int64]) -> "Windows":
        """Contexts that end at these seconds, [row, step, ...]."""
        at = np.maximum(0, second[:, None] - np.arange(SECONDS - 1, -1, -1))
        observations, actions = steps(self.seconds[episode[:, None], at])
        ends = at[:, SECONDS // observations.shape[1] - 1 :: SECONDS // observations.shape[1]]
        rows = episode[:, None]
        return Windows(self.returns[rows, ends], observations, actions, self.said[rows, ends])


@dataclass(frozen=True, slots=True)
class Windows:
    returns: Singles  # [row, step]
    observations: Singles  # [row, step, feature]
    actions: Singles  # [row, step, 1] that were done
    said: Singles  # [row, step]


class Oracle:
    """A Kalman budget for each GPU that knows its constants; airflow and inlet it has to find out as all do."""

    def __init__(self, trial: Trial) -> None:
        paths = trial.paths
        columns = (paths.die_j_per_k, paths.sink_j_per_k, paths.die_sink, paths.sink_air)
        names = ("die_j_per_k", "sink_j_per_k", "die_sink_k_per_w", "sink_air_k_per_w")
        each = np.stack([np.broadcast_to(column, paths.die_sink.shape).ravel() for column in columns], axis=1)
        kinds = [replace(H100, **dict(zip(names, row, strict=True))) for row in each.tolist()]
        self._controllers = [KalmanBudget(kind, 1) for kind in kinds]

    def act(self, seen: Observed) -> Floats:
        speeds = [one.act(_of(seen, at)) for at, one in enumerate(self._controllers)]
        return np.concatenate(speeds)


def _of(seen: Observed, at: int) -> Observed:
    here = slice(at, at + 1)
    return Observed(seen.temp_c[here], seen.power_w[here], seen.queue[here], seen.busy[here], seen.speed[here])


class Disturbed:
    """Does what a controller says, with a disturbance on some GPUs; keeps what it said."""

    def __init__(self, controller: Acts, gpus: int, seed: int) -> None:
        self._controller = controller
        self._rng = np.random.default_rng((seed, 47))
        self._disturbed = self._rng.random(gpus) < DISTURBED
        self._by = np.zeros(gpus)
        self.said: list[Floats] = []

    def act(self, seen: Observed) -> Floats:
        said = self._controller.act(seen)
        self.said.append(said)
        fresh = self._rng.normal(0.0, DISTURBANCE * np.sqrt(1.0 - KEEP**2), len(said))
        self._by = KEEP * self._by + fresh
        return bounded(H100, said + np.where(self._disturbed, self._by, 0.0))


def reward(hour: Hour, work: Floats) -> Floats:
    """[second, ...]: work served, less .01 of the queue, 10 above the limit and 1e-4 of the watts; less the work that
    came. The last is not the controller's doing, and without it a target return would ask for load."""
    hot = 10.0 * (hour.peak_c > LIMIT_C)
    found: Floats = hour.served - work - 0.01 * hour.queue - hot - 1e-4 * hour.power_w
    return found


def returns(rewards: Floats) -> Floats:
    """Mean of the next HORIZON_S seconds, or of those that are left."""
    summed = np.concatenate([np.zeros((1, *rewards.shape[1:])), np.cumsum(rewards, axis=0)])
    begin = np.arange(len(rewards))
    end = np.minimum(begin + HORIZON_S, len(rewards))
    length = (end - begin).reshape(-1, *[1] * (rewards.ndim - 1))
    found: Floats = (summed[end] - summed[begin]) / length
    return found


def _modelled(make: Callable[..., ThermalController]) -> Callable[[Trial], Acts]:
    return lambda trial: make(H100, trial.work[0].size)


DEMONSTRATORS: dict[str, Callable[[Trial], Acts]] = {
    "kalman": _modelled(KalmanBudget),
    "lqg": _modelled(Lqg),
    "mpc": _modelled(Mpc),
    "oracle": Oracle,
}


def collect(plants: dict[str, int], first_seed: int, say: Callable[[str], None]) -> Demonstrations:
    """plants: how many of each demonstrator, each on plants of its own from `first_seed` on."""
    parts, seed = [], first_seed
    who: list[str] = []
    for name, count in plants.items():
        # In several draws: each has sensors of its own.
        for some in np.array_split(np.arange(count), max(1, count // 24)):
            seeds = tuple(seed + int(at) for at in some)
            parts.append(_episodes(name, draw(TRAINED, seeds, EPISODE_S), seeds[0]))
        seed, who = seed + count, [*who, *[name] * count]
        say(f"{name}: {count} episodes")
    columns = [np.concatenate(column, axis=0).astype(np.float32) for column in zip(*parts, strict=True)]
    return Demonstrations(columns[0], columns[1], columns[2], tuple(who))


def _episodes(name: str, trial: Trial, seed: int) -> tuple[Floats, Floats, Floats]:
    """[episode, second, ...] of features, what was said, returns."""
    controller = Disturbed(DEMONSTRATORS[name](trial), trial.work[0].size, seed)
    seen: list[Singles] = []
    hour = run(trial, controller, lambda observed, _: seen.append(features(H100, observed)))
    ended = returns(reward(hour, trial.work)).reshape(EPISODE_S, -1)
    assert len(seen) == EPISODE_S
    assert seen[0].shape[1] == len(FEATURES)
    return np.stack(seen, axis=1), np.stack(controller.said, axis=1), ended.T
