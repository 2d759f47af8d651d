"""Seconds and joules of one worker's GPUs. What is still running counts up to now.

At a lower speed what it draws above its context falls with the power law of headrace.control.power: constants there.
"""

from headrace.control.constants import H100
from headrace.core.cost import Power

EXPONENT = H100.speed_exponent  # one for all kinds [I]


class Meter:
    __slots__ = ("_busy_s", "_extra_joules", "_gpus", "_on_s", "_power", "_running", "_share", "_up_since_s")

    def __init__(self, power: Power, gpus: int) -> None:
        self._power = power
        self._gpus = gpus
        self._up_since_s: float | None = None
        self._on_s = 0.0
        self._busy_s = 0.0
        self._extra_joules = 0.0  # above what a loaded instance draws that computes nothing
        self._running: tuple[float, float] | None = None  # since when, at how many watts more, all GPUs together
        self._share = 1.0  # of those watts, at the speed that it has

    def up(self, now_s: float) -> None:
        assert self._up_since_s is None
        self._up_since_s = now_s

    def down(self, now_s: float) -> None:
        self.rest(now_s)
        assert self._up_since_s is not None
        self._on_s += now_s - self._up_since_s
        self._up_since_s = None

    def work(self, now_s: float, power_w: float) -> None:
        """Computes from now on, at so many watts a GPU."""
        assert self._running is None
        self._running = (now_s, max(0.0, power_w - self._power.context_w) * self._gpus)

    def run_at(self, now_s: float, speed: float) -> None:
        """Of full speed, from now on."""
        running = self._running
        self.rest(now_s)
        self._share = speed**EXPONENT
        self._running = (now_s, running[1]) if running is not None else None

    def rest(self, now_s: float) -> None:
        if self._running is not None:
            since_s, extra_w = self._running
            self._busy_s += now_s - since_s
            self._extra_joules += (now_s - since_s) * extra_w * self._share
            self._running = None

    def on_s(self, now_s: float) -> float:
        return self._on_s + (now_s - self._up_since_s if self._up_since_s is not None else 0.0)

    def busy_s(self, now_s: float) -> float:
        return self._busy_s + (now_s - self._running[0] if self._running is not None else 0.0)

    def joules(self, now_s: float) -> float:
        running = (now_s - self._running[0]) * self._running[1] * self._share if self._running is not None else 0.0
        return self.on_s(now_s) * self._power.context_w * self._gpus + self._extra_joules + running
