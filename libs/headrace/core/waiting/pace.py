"""Learns how fast a worker really is: its advertised pace, corrected by what its heartbeats say it has done.

Recursive least squares with forgetting, kept as sums: first one factor for everything, since a slow GPU is slow all
over, and from it, as far as loads of different kinds tell them apart, the three shares of an iteration.
"""

import math

from headrace.core.governing import FULL, Speeds
from headrace.core.instance import Done, Pace

PRIOR_WEIGHT = 2.0  # observations that the advertised pace is worth
GUESS_WEIGHT = 1e-6  # where nothing is advertised: the first observation overrules it
MEMORY = 60.0  # observations; of a heartbeat each 0.5 s: half a minute
ITERATIONS_LEAST = 4  # fewer are no observation yet: they count with the next
# Huber's bound: a single observation counts as no further off than this share of what was expected, so that a process
# that was stopped moves the pace by a few hundredths. Several of them on one side are a change: what was known before,
# the advertised pace too, hardly counts any more.
OUTLIER = 0.2
OUTLIERS_IN_A_ROW = 3
CHANGE_FADE = 0.01
RATIO_MOST = 50.0  # no worker is so much slower than its profile: what asks for more is a broken counter
# Where nothing is advertised: a 7B model on one GPU [I], for the proportions alone.
GUESS = Pace(step_s=0.015, sequence_s=0.0001, prefill_token_s=0.0001)
GUESS_RATIO_MOST = 1e4
# How much each of the three is held to the common factor: as by so many observations, half as many after SHARES_APART.
SHARES_WEIGHT = 2.0
SHARES_GUESS_WEIGHT = 0.1
SHARES_APART = 3.0

_Three = tuple[float, float, float]
_Six = tuple[float, float, float, float, float, float]  # a symmetric matrix: 11 12 13 22 23 33


class PaceLearner:
    """Of one model on one worker; a worker that loads another model gets another learner.

    The unknowns are ratios to the advertised pace. An observation is an interval between two heartbeats: the seconds
    that each part of it should have taken by that pace, as shares of those that it took; with the ratios they sum to 1.
    """

    __slots__ = (
        "_base",
        "_last",
        "_matrix",
        "_most",
        "_pace",
        "_prior",
        "_ratio",
        "_row",
        "_seen",
        "_shares",
        "_vector",
    )

    def __init__(self, advertised: Pace | None = None) -> None:
        """A part that is advertised as none, beside others that are not, stays none."""
        known = advertised is not None and advertised != Pace()
        base = advertised if advertised is not None and known else GUESS
        self._base: _Three = (base.step_s, base.sequence_s, base.prefill_token_s)
        assert min(self._base) >= 0
        self._prior = PRIOR_WEIGHT if known else GUESS_WEIGHT
        self._shares = SHARES_WEIGHT if known else SHARES_GUESS_WEIGHT
        self._most = RATIO_MOST if known else GUESS_RATIO_MOST
        self._row = 0  # outliers on one side: positive when slow
        self._matrix: _Six = (0.0,) * 6
        self._vector: _Three = (0.0,) * 3
        self._ratio: _Three = (1.0,) * 3
        self._seen = 0.0  # observations, faded
        self._pace: Pace | None = base
        self._last = Done()

    @property
    def pace(self) -> Pace:
        """At full speed."""
        if self._pace is None:
            (a, b, c), (x, y, z) = self._base, self._solved()
            self._pace = Pace(a * x, b * y, c * z)
        return self._pace

    def tokens_per_s(self, batch: float, speeds: Speeds = FULL) -> float:
        """Of `batch` sequences that only decode, at the speeds that a governor leaves."""
        pace = speeds.slowed(self.pace)
        step_s = pace.step_s + pace.sequence_s * batch
        return batch / step_s if step_s > 0 else math.inf

    def observe(self, done: Done, speeds: Speeds = FULL) -> bool:
        """A heartbeat's counters, since the model was loaded; speeds: that held since the last ones that counted.
        Whether these count: too few of them count with the next."""
        last = self._last
        if done.iterations < last.iterations or done.busy_s < last.busy_s:
            last = self._last = Done()  # loaded again: the counters began anew
        iterations = done.iterations - last.iterations
        if iterations < ITERATIONS_LEAST:
            return False
        self._last = done
        busy_s = done.busy_s - last.busy_s
        base, ratio = self._base, self.ratio
        a = base[0] * iterations / speeds.decode
        b = base[1] / speeds.decode * (done.decode_tokens - last.decode_tokens)
        c = base[2] / speeds.prefill * (done.prefill_tokens - last.prefill_tokens)
        expected_s = a * ratio[0] + b * ratio[1] + c * ratio[2]
        if busy_s > 0 and expected_s > 0 and math.isfinite(busy_s):
            self._add(a / expected_s, b / expected_s, c / expected_s, busy_s / expected_s)
        return True

    @property
    def ratio(self) -> _Three:
        """Of what is learnt to what was advertised, part by part."""
        _ = self.pace
        return self._ratio

    def _add(self, a: float, b: float, c: float, took: float) -> None:
        fade = 1.0 - 1.0 / MEMORY
        if abs(took - 1.0) > OUTLIER and self._prior + self._seen >= 1.0:  # else nothing is known to be out of
            side = 1 if took > 1.0 else -1
            self._row = self._row + side if self._row * side >= 0 else side
            if abs(self._row) > OUTLIERS_IN_A_ROW:
                fade = CHANGE_FADE
                self._prior = max(self._prior * fade, GUESS_WEIGHT)
            else:
                took = 1.0 + side * OUTLIER
        else:
            self._row = 0
        # In shares of what it took, slow and fast times weigh alike.
        a, b, c = a / took, b / took, c / took
        m, v = self._matrix, self._vector
        self._matrix = (
            fade * m[0] + a * a,
            fade * m[1] + a * b,
            fade * m[2] + a * c,
            fade * m[3] + b * b,
            fade * m[4] + b * c,
            fade * m[5] + c * c,
        )
        self._vector = (fade * v[0] + a, fade * v[1] + b, fade * v[2] + c)
        self._seen = fade * self._seen + 1.0
        self._pace = None

    def _solved(self) -> _Three:
        m, v, prior = self._matrix, self._vector, self._prior
        if not self._seen:
            return self._ratio
        whole = m[0] + m[3] + m[5] + 2 * (m[1] + m[2] + m[4])
        factor = (prior + v[0] + v[1] + v[2]) / (prior + whole)
        weight = self._shares * whole / self._seen / (1.0 + self._seen / SHARES_APART)
        matrix = (m[0] + weight, m[1], m[2], m[3] + weight, m[4], m[5] + weight)
        vector = (v[0] + weight * factor, v[1] + weight * factor, v[2] + weight * factor)
        ratio = _solve(matrix, vector)
        if min(ratio) < 0.0 or max(ratio) > self._most:
            start = min(max(factor, 0.0), self._most)
            ratio = _within(matrix, vector, (start, start, start), self._most)
        self._ratio = ratio
        return ratio


def _solve(m: _Six, v: _Three) -> _Three:
    """The three unknowns, by Cramer's rule; m is positive definite."""
    a, b, c, d, e, f = m
    p, q, r = d * f - e * e, c * e - b * f, b * e - c * d  # cofactors of the first row
    s, t, u = a * f - c * c, b * c - a * e, a * d - b * b
    scale = 1.0 / (a * p + b * q + c * r)
    x, y, z = v
    return (p * x + q * y + r * z) * scale, (q * x + s * y + t * z) * scale, (r * x + t * y + u * z) * scale


def _within(m: _Six, v: _Three, start: _Three, most: float) -> _Three:
    """The least squares within 0 .. most, coordinate by coordinate: seldom needed, and soon near enough."""
    x, y, z = start
    for _ in range(40):
        x = min(max((v[0] - m[1] * y - m[2] * z) / m[0], 0.0), most)
        y = min(max((v[1] - m[1] * x - m[4] * z) / m[3], 0.0), most)
        z = min(max((v[2] - m[2] * x - m[4] * y) / m[5], 0.0), most)
    return x, y, z
