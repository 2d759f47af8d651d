"""Least squares of seconds over named terms that cannot be negative, and how well they foresee what they did not see.

Rows weigh by their relative error: a tenth of a millisecond matters where an iteration takes one, not where it takes a
second. Solved by the active-set method of Lawson and Hanson (Solving Least Squares Problems, 1974, chapter 23), which
is scipy.optimize.nnls.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from headrace.calibration.errors import PoorFit

# Of the median over what was held out. Beyond a fifth a simulation would mislead; a quiet machine stays below a tenth.
HELD_OUT_MAX = 0.2
# ... or by less than this: what takes a fraction of a millisecond is at the mercy of the machine's scheduler.
NOISE_S = 1e-3


@dataclass(frozen=True, slots=True)
class Missed:
    """One observation that a fit had not seen."""

    seconds: float  # as measured
    error: float  # relative


@dataclass(frozen=True, slots=True)
class HeldOut:
    """How a fit foresaw what it had not seen, in the middle."""

    error: float  # relative
    seconds: float  # that it missed by

    def check(self, what: str) -> None:
        """Raises PoorFit: it missed by more than HELD_OUT_MAX, and by more than NOISE_S."""
        if self.error > HELD_OUT_MAX and self.seconds > NOISE_S:
            raise PoorFit(
                f"{what}: what was left out of the fit is missed by {self.error:.0%} (at most {HELD_OUT_MAX:.0%} is "
                "taken); calibrate again while the machine does nothing else, or with more rounds"
            )


@dataclass(frozen=True, slots=True)
class Row:
    """One observation: seconds, and how much of each term was in it."""

    group: str  # what is held out together
    seconds: float
    terms: Mapping[str, float]

    def __post_init__(self) -> None:
        assert self.seconds > 0


@dataclass(frozen=True, slots=True)
class Fit:
    values: Mapping[str, float]  # seconds of one unit of each term, none negative
    errors: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))  # relative, one a row

    def seconds(self, terms: Mapping[str, float]) -> float:
        return sum(amount * self.values.get(name, 0.0) for name, amount in terms.items())

    @property
    def median_error(self) -> float:
        return float(np.median(np.abs(self.errors)))

    @property
    def worst_error(self) -> float:
        return float(np.max(np.abs(self.errors)))


def fit(rows: Sequence[Row]) -> Fit:
    """Minimises the sum of squared relative errors."""
    assert rows, "nothing was measured"
    names = sorted({name for row in rows for name in row.terms})
    seconds = np.array([row.seconds for row in rows])
    amounts = np.array([[row.terms.get(name, 0.0) for name in names] for row in rows]) / seconds[:, None]
    scales = np.linalg.norm(amounts, axis=0)
    scales[scales == 0] = 1.0
    solved, _ = nnls(amounts / scales, np.ones(len(rows)))
    errors = (amounts / scales) @ solved - 1.0
    return Fit(dict(zip(names, (solved / scales).tolist(), strict=True)), errors)


def held_out_errors(rows: Sequence[Row], groups: Sequence[str]) -> list[Missed]:
    """Of each of these groups' rows, under a fit of all the others."""
    errors = list[Missed]()
    for group in groups:
        kept = [row for row in rows if row.group != group]
        left = [row for row in rows if row.group == group]
        if kept and left:
            known = fit(kept)
            errors += [Missed(row.seconds, known.seconds(row.terms) / row.seconds - 1.0) for row in left]
    return errors


def held_out(missed: Sequence[Missed]) -> HeldOut:
    """Medians; nan where nothing could be held out."""
    if not missed:
        return HeldOut(float("nan"), float("nan"))
    error = float(np.median([abs(each.error) for each in missed]))
    return HeldOut(error, float(np.median([abs(each.error) * each.seconds for each in missed])))
