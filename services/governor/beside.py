"""A learnt thermal controller beside the safe one: how far they are apart, and, if it may act, what it slows down.

It computes in a thread of its own, for which a step waits a bounded time; who is late several times in a row, or whose
network fails, is switched off and the safe controller is alone again.
"""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from headrace.control.thermal.base import Floats
from headrace.control.thermal.context import Singles
from headrace.control.thermal.network import Network, Trained
from headrace.control.thermal.safety import Mask, filtered
from headrace.core.errors import Unavailable
from headrace.core.power.decision import Entry

Mode = Literal["off", "shadow", "act"]
Window = tuple[Singles, Singles]  # of control.thermal.context: observations, actions
WAIT_S = 0.1  # of a second that the governor has
LATE_MOST = 5  # in a row
MINUTE = 60
APART = 0.05  # mean difference of a minute that is worth a line in the audit log


class Speaks(Protocol):
    """A Network; called from a thread."""

    trained: Trained

    def speeds(self, observations: Singles, actions: Singles) -> Floats: ...


@dataclass(slots=True)
class Tally:
    """Sums over devices and seconds of what the network said beside the safe speed."""

    seconds: int = 0  # of devices
    apart: float = 0.0
    above: int = 0  # it would have been faster
    worst: float = 0.0
    worst_at: str = ""
    distrusted: int = 0  # not a number, or outside of what it was trained on: the safe speed alone

    def add(self, said: Floats, safe: Floats, believed: Mask, keys: Sequence[str]) -> None:
        self.distrusted += int((~believed).sum())
        if not believed.any():
            return
        off = np.where(believed, np.minimum(said, 1.0) - safe, 0.0)
        self.seconds += int(believed.sum())
        self.apart += float(np.abs(off).sum())
        self.above += int((off > 1e-3).sum())
        far = int(np.abs(off).argmax())
        if abs(off[far]) > self.worst:
            self.worst, self.worst_at = float(abs(off[far])), keys[far]

    @property
    def mean_apart(self) -> float:
        return self.apart / max(1, self.seconds)

    @property
    def above_share(self) -> float:
        return self.above / max(1, self.seconds)


@dataclass(slots=True)
class Beside:
    """network: None: it could not be loaded, and `trouble` says why."""

    mode: Mode
    name: str
    network: Speaks | None
    trouble: str = ""
    wait_s: float = WAIT_S
    all: Tally = field(default_factory=Tally)
    late: int = 0
    took_s: float = 0.0  # that the last answer took
    _late_now: int = 0  # in a row
    _minute: Tally = field(default_factory=Tally)
    _left: int = MINUTE
    _entries: list[Entry] = field(default_factory=list)
    _job: "Future[Floats] | None" = None
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "learnt"))

    @classmethod
    def load(cls, mode: Mode, name: str) -> "Beside":
        try:
            return cls(mode, name, Network(name))
        except Unavailable as error:
            made = cls(mode, name, None)
            made.stop(error.message)
            return made

    @property
    def running(self) -> bool:
        return self.network is not None and not self.trouble

    def think(self, windows: Sequence[Window]) -> Floats | None:
        """What it says for all windows together; None: nothing in time, or it is off."""
        if not self.running or not windows:
            return None
        assert self.network is not None
        if self._job is not None and not self._job.done():
            self._missed()
            return None
        observations, actions = (np.concatenate(column) for column in zip(*windows, strict=True))
        began_s = time.perf_counter()
        self._job = self._thread.submit(self.network.speeds, observations, actions)
        try:
            said = self._job.result(self.wait_s)
        except TimeoutError:
            self._missed()
            return None
        except Unavailable as error:
            self.stop(error.message)
            return None
        self._late_now, self.took_s = 0, time.perf_counter() - began_s
        return said

    def _missed(self) -> None:
        self.late += 1
        self._late_now += 1
        if self._late_now >= LATE_MOST:
            self.stop(f"later than {1e3 * self.wait_s:.0f} ms in {LATE_MOST} seconds in a row")

    def judge(self, said: Floats, safe: Floats, keys: Sequence[str]) -> Floats:
        """The speeds that hold: the safe ones, or, where it acts, what the filter lets through."""
        assert self.network is not None
        speed, believed = filtered(said, safe, self.network.trained.least, self.network.trained.most)
        self.all.add(said, safe, believed, keys)
        self._minute.add(said, safe, believed, keys)
        return speed if self.mode == "act" else safe

    def passed(self) -> None:
        """A second has: once a minute, what is worth a line."""
        self._left -= 1
        if self._left > 0:
            return
        last, self._minute, self._left = self._minute, Tally(), MINUTE
        if last.mean_apart > APART:
            far = f"{last.above_share:.0%} of the time above it, most at {last.worst_at}"
            self._entry(f"a minute's mean difference from the safe speed; {far}", last.mean_apart)
        if last.distrusted:
            self._entry("its answers were not believed: seconds of devices with the safe speed alone", last.distrusted)

    def stop(self, why: str) -> None:
        self.trouble = why
        self._entry(f"switched off, the safe controller is alone: {why}", 0.0)

    def _entry(self, reason: str, after: float) -> None:
        self._entries.append(Entry("learnt", f"{self.mode}/{self.name}", reason, 0.0, float(after)))

    def entries(self) -> list[Entry]:
        """Since the last call."""
        found, self._entries = self._entries, []
        return found

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
