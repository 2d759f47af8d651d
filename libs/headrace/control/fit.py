"""Thermal constants of a GPU from a log of its power and temperature, such as a step response: idle, load, idle.

Least squares of the two-node model's exact answer to the logged watts against the logged temperatures. The inlet is
taken to have been the same all the time: a quarter of an hour is enough, and short enough.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm
from scipy.optimize import least_squares

from headrace.control.constants import GpuKind

Floats = NDArray[np.float64]
COLUMNS = ("t_s", "power_w", "temp_c")
SECONDS_LEAST, ROWS_LEAST = 120.0, 60
SWING_LEAST_K, SWING_LEAST_W = 8.0, 50.0  # less says nothing of how heat flows
RMSE_MOST_K = 1.5  # of a model that explains the log
NAMES = ("die_j_per_k", "sink_j_per_k", "die_sink_k_per_w", "sink_air_k_per_w")


class FitError(ValueError):
    """A log that no constants can be had from; the message says what is wrong with it and what would do."""


@dataclass(frozen=True, slots=True)
class Log:
    t_s: Floats  # rising
    power_w: Floats  # from each reading to the next
    temp_c: Floats

    def __post_init__(self) -> None:
        if len(self.t_s) < ROWS_LEAST:
            raise FitError(f"{len(self.t_s)} readings: at least {ROWS_LEAST} are needed, ten a second are best")
        if not all(np.isfinite(each).all() for each in (self.t_s, self.power_w, self.temp_c)):
            raise FitError("a reading is not a number: leave such rows out")
        if (np.diff(self.t_s) <= 0).any():
            at = int(np.flatnonzero(np.diff(self.t_s) <= 0)[0])
            raise FitError(f"t_s: does not rise after row {at + 1}")
        if self.t_s[-1] - self.t_s[0] < SECONDS_LEAST:
            raise FitError(f"t_s: covers {self.t_s[-1] - self.t_s[0]:.0f} s; a sink needs {SECONDS_LEAST:.0f} s")
        for name, values, least, unit in (
            ("temp_c", self.temp_c, SWING_LEAST_K, "K"),
            ("power_w", self.power_w, SWING_LEAST_W, "W"),
        ):
            swing = float(values.max() - values.min())
            if swing < least:
                raise FitError(f"{name}: moves by {swing:.1f} {unit} only; a step of {least:.0f} {unit} or more shows")


@dataclass(frozen=True, slots=True)
class Fitted:
    values: dict[str, float]  # by NAMES
    errors: dict[str, float]  # standard errors
    inlet_c: float
    rmse_k: float
    readings: int

    @property
    def resistance(self) -> float:
        """From die to air, K/W: known far better than its two parts."""
        return self.values["die_sink_k_per_w"] + self.values["sink_air_k_per_w"]


def read(path: Path) -> Log:
    """A CSV file with the columns t_s, power_w, temp_c; others may stand beside them. Raises FitError."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
        if missing:
            raise FitError(f"{path.name}: has no column {missing[0]!r}; wanted are {', '.join(COLUMNS)}")
        columns: dict[str, list[float]] = {name: [] for name in COLUMNS}
        for number, row in enumerate(rows, start=2):
            for name in COLUMNS:
                try:
                    columns[name].append(float(row[name]))
                except (TypeError, ValueError):
                    raise FitError(f"{path.name}, line {number}: {name} = {row[name]!r} is not a number") from None
    return Log(*(np.array(columns[name]) for name in COLUMNS))


def fit(log: Log, near: GpuKind) -> Fitted:
    """near: where to begin. Raises FitError: no constants explain the log."""
    begin = [np.log(getattr(near, name)) for name in NAMES]
    lowest = float(log.temp_c.min())

    def residuals(theta: Floats) -> Floats:
        found: Floats = answer(log, np.exp(theta[:4]), float(theta[4])) - log.temp_c
        return found

    solved = least_squares(residuals, [*begin, lowest - 5.0], x_scale=[0.3, 0.3, 0.3, 0.3, 3.0], loss="soft_l1")
    rmse = float(np.sqrt(np.mean(residuals(solved.x) ** 2)))
    if rmse > RMSE_MOST_K:
        raise FitError(f"temp_c: two nodes miss it by {rmse:.1f} K; was the fan or the inlet changed meanwhile?")
    values = np.exp(solved.x[:4])
    errors = values * _errors(solved.jac, rmse)[:4]  # of logarithms, so relative
    named, spread = (dict(zip(NAMES, map(float, each), strict=True)) for each in (values, errors))
    return Fitted(named, spread, float(solved.x[4]), rmse, len(log.t_s))


def answer(log: Log, constants: Floats, inlet_c: float) -> Floats:
    """The die's temperatures, by constants in the order of NAMES; it begins as the log does, settled."""
    c1, c2, r12, r2 = constants
    rates = np.array([[-1 / (r12 * c1), 1 / (r12 * c1)], [1 / (r12 * c2), -1 / (r12 * c2) - 1 / (r2 * c2)]])
    steps: dict[float, tuple[Any, Any]] = {}
    state = np.array([log.temp_c[0], inlet_c + (log.temp_c[0] - inlet_c) * r2 / (r2 + r12)]) - inlet_c
    found = [float(state[0])]
    for dt_s, watts in zip(np.round(np.diff(log.t_s), 3).tolist(), log.power_w.tolist(), strict=False):
        known = steps.get(dt_s)
        if known is None:
            a = expm(rates * dt_s)
            known = steps[dt_s] = a, np.linalg.solve(rates, (a - np.eye(2)) @ np.array([1 / c1, 0.0]))
        state = known[0] @ state + known[1] * watts
        found.append(float(state[0]))
    return np.array(found) + inlet_c


def _errors(jacobian: Any, rmse: float) -> Floats:
    found: Floats = rmse * np.sqrt(np.diag(np.linalg.pinv(jacobian.T @ jacobian)))
    return found
