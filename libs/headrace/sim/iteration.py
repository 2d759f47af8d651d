"""One iteration of a simulated engine, or several that only decode: when it is over, and what of it is done by now.

At a speed below 1 an iteration takes as many times as long. Where the speed changes under way, what is left of the
running step goes on at the new one, and a stretch ends with that step: the next ones are another stretch.
"""

from dataclasses import dataclass

from headrace.core.cost import StepCost, StepWork
from headrace.core.governing import FULL, Speeds
from headrace.core.stages.batch import Chunk, Live
from headrace.sim.held import Counted, Held


@dataclass(slots=True, eq=False)
class Iteration:
    """One iteration, or `steps` of them that only decode."""

    start_s: float
    work: StepWork
    decoding: list[Live[Counted, Held]]
    chunks: list[Chunk[Counted, Held]]
    entering: list[Held]
    steps: int
    copy_s: float = 0.0  # of KV caches that leave with it, or come from host memory before it
    slow: float = 1.0  # times as long as at full speed
    end_s: float = 0.0
    last: bool = False  # its last step runs, at a speed that has changed
    last_slow: float = 1.0  # since then

    def took_s(self, cost: StepCost, steps: int) -> float:
        if steps > 1:
            return cost.stretch_s(self.work, steps) * self.slow
        return cost.step_s(self.work) * self.slow + self.copy_s

    def is_stretch(self, cost: StepCost) -> bool:
        """Whether it may yet end before its last step."""
        return self.steps > 1 and not self.last and cost.step_s(self.work) > 0.0

    def begun(self, cost: StepCost, now_s: float) -> int:
        return cost.steps_begun(self.work, (now_s - self.start_s) / self.slow)

    def ahead(self, cost: StepCost, now_s: float) -> int:
        """Steps of a stretch that are over already."""
        if self.last:
            return self.steps - 1
        return min(self.begun(cost, now_s), self.steps) - 1 if self.is_stretch(cost) else 0

    def ahead_s(self, cost: StepCost, ahead: int) -> float:
        """Seconds that so many of them took."""
        return cost.stretch_s(self.work, ahead) * self.slow

    def change_speed(self, cost: StepCost, now_s: float, slow: float) -> float:
        """When it is over at a speed that holds from now on, in its last step. Copies come before it computes."""
        was = self.last_slow if self.last else self.slow
        left_s = min(self.end_s - now_s, was * self._last_step_s(cost))
        self.last, self.last_slow = True, slow
        return self.end_s + left_s * (slow / was - 1.0)

    def _last_step_s(self, cost: StepCost) -> float:
        """At full speed."""
        if self.steps == 1:
            return cost.step_s(self.work)
        return cost.stretch_s(self.work, self.steps) - cost.stretch_s(self.work, self.steps - 1)


def slow_of(cost: StepCost, work: StepWork, speeds: Speeds) -> float:
    """Times as long as at full speed; of a mixed iteration each part at the speed of its phase."""
    if speeds == FULL:
        return 1.0
    share = decode_share(cost, work)
    return share / speeds.decode + (1.0 - share) / speeds.prefill


def decode_share(cost: StepCost, work: StepWork) -> float:
    """Of the iteration's time: the rest is what prefilling adds."""
    step_s = cost.step_s(work)
    return 1.0 - cost.prefill_s(work, step_s) / step_s if step_s else 1.0
