"""Whom energy belongs to. The rule: what devices take while a worker computes belongs to the requests that it computes
for, in proportion to the time of their tokens; what they take while nothing is computed is idle and belongs to nobody.

A plant says the joules of each iteration. Real devices are read once a second: see Measured.
"""

from dataclasses import dataclass

# What was charged and what was measured differ until the next reading; so many busy seconds make up for it.
MEND_S = 10.0
BUSY_LEAST = 0.02  # share of an interval; below it the interval says what idling takes


@dataclass(slots=True)
class Account:
    """A worker's joules since its start; counters, but for rounding."""

    prefill_j: float = 0.0
    decode_j: float = 0.0
    encode_j: float = 0.0
    idle_j: float = 0.0
    lost_j: float = 0.0  # of the first three: for requests that were gone, and that nobody could be told of

    @property
    def computed_j(self) -> float:
        return self.prefill_j + self.decode_j + self.encode_j


class Measured:
    """The watts of computing, from what was measured lately: what is computed now is read only later.

    An interval's energy less its idle part is what was computed in it. Idle watts are the least that were seen in an
    interval without work; until there was one, an idle second counts as much as a busy one.
    """

    def __init__(self) -> None:
        self.watts = 0.0  # of a busy second; 0: not known
        self._idle_w: float | None = None
        self._busy_s = 0.0
        self._charged_j = 0.0
        self._carry_j = 0.0  # computed and not charged; negative: charged too much

    def spend(self, busy_s: float) -> float:
        """Joules to charge for it."""
        joules = busy_s * self.watts
        self._busy_s += busy_s
        self._charged_j += joules
        return joules

    def read(self, energy_j: float, interval_s: float) -> tuple[float, float]:
        """The devices' energy since the last reading. Returns the idle part of it, and the busy share."""
        busy_s, charged_j = min(self._busy_s, interval_s), self._charged_j
        self._busy_s = self._charged_j = 0.0
        if busy_s < BUSY_LEAST * interval_s:
            watts = energy_j / interval_s
            self._idle_w = watts if self._idle_w is None else min(watts, self._idle_w)
            self._carry_j -= charged_j
            return energy_j, busy_s / interval_s
        mean_w = energy_j / interval_s
        idle_w = mean_w if self._idle_w is None else min(self._idle_w, mean_w)
        idle_j = idle_w * (interval_s - busy_s)
        computed_j = energy_j - idle_j
        self._carry_j += computed_j - charged_j
        watts = computed_j / busy_s
        mend = self._carry_j / (watts * MEND_S) if watts else 0.0
        self.watts = watts * (1.0 + min(max(mend, -0.5), 0.5))
        return idle_j, busy_s / interval_s
