"""How a budget is shared between stages: each 25 W go where the mesh gains most by them.

The mesh is as fast as its narrowest stage: its goodput is the least, over stages, of what a stage can do with its watts
beside what is asked of it. So the next watts always go to the narrowest one. Every 10 s, with hysteresis; and where
workers can change their stage it says when one more here and one fewer there would do better.
"""

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

EVERY_S = 10.0
STEP_W = 25.0
STEPS = (200, 4_000)  # of one solution: a small budget is shared in smaller steps, a large one in larger
GAIN = 0.05  # by how much a new solution must be better, to replace the one that holds
# How often in a row a move must look better before it is proposed: loads of single seconds are no reason.
MOVE_AFTER = 2


@dataclass(frozen=True, slots=True)
class StageLoad:
    """One stage: its devices, what is asked of them, and their power law. Watts of one device."""

    name: str
    devices: float
    asked: float  # seconds of work at full speed that come in a second
    context_w: float
    full_w: float
    least_w: float
    exponent: float = 3.56
    free_speed: float = 1.0  # above it nothing is lost
    speed_least: float = 0.35
    working: float = -1.0  # that the work is spread over; the others stand at their least; negative: all

    @property
    def spread(self) -> float:
        return self.working if self.working >= 0.0 else self.devices

    def able(self, watts: float) -> float:
        """Seconds of work at full speed that it does in a second with so many watts in all."""
        if self.spread <= 0.0:
            return 0.0
        each_w = (watts - (self.devices - self.spread) * self.least_w) / self.spread
        left = (each_w - self.context_w) / max(self.full_w - self.context_w, 1e-9)
        speed: float = min(1.0, max(self.speed_least, max(left, 0.0) ** (1.0 / self.exponent)))
        return self.spread * min(1.0, speed / self.free_speed)

    def goodput(self, watts: float) -> float:
        """Beside what is asked; above 1 it has time to spare."""
        return self.able(watts) / self.asked if self.asked > 1e-9 else float("inf")

    @property
    def bounds_w(self) -> tuple[float, float]:
        least = self.devices * self.least_w
        return least, least + self.spread * max(self.full_w - self.least_w, 0.0)


@dataclass(frozen=True, slots=True)
class Share:
    stage: str
    budget_w: float
    demand_w: float  # at full speed
    goodput: float
    gain_per_w: float  # marginal: seconds of work at full speed, a second and watt
    move: int = 0


def greedy(stages: Sequence[StageLoad], limit_w: float, step_w: float = STEP_W) -> list[float]:
    """Watts of each stage: all at their least, then step after step to the narrowest; those with nothing to do last."""
    watts = [stage.bounds_w[0] for stage in stages]
    left = limit_w - sum(watts)
    step_w = max(min(step_w, left / STEPS[0]), left / STEPS[1])
    line = [(stage.goodput(watts[at]), at) for at, stage in enumerate(stages) if stage.devices > 0.0]
    heapq.heapify(line)
    while line and left >= step_w > 0.0:
        _, at = heapq.heappop(line)
        step = min(step_w, stages[at].bounds_w[1] - watts[at])
        if step > 0.0:
            watts[at] += step
            left -= step
            heapq.heappush(line, (stages[at].goodput(watts[at]), at))
    return watts


def mesh_goodput(stages: Sequence[StageLoad], watts: Sequence[float]) -> float:
    """Of the narrowest stage; 1 if all do what is asked."""
    return min((1.0, *(stage.goodput(given) for stage, given in zip(stages, watts, strict=True) if stage.asked > 1e-9)))


class Allocator:
    def __init__(self) -> None:
        self._solved_s = float("-inf")
        self._held: dict[str, float] = {}  # watts
        self._looked = 0
        self._move: tuple[str, str] | None = None
        self.shares: list[Share] = []

    def solve(
        self, stages: Sequence[StageLoad], limit_w: float, now_s: float, elastic: Collection[str] = ()
    ) -> Mapping[str, float]:
        """Watts by stage; empty while all may draw what they can. elastic: stages whose workers can change places."""
        bound = sum(stage.bounds_w[1] for stage in stages) > limit_w
        held = [self._held.get(stage.name, -1.0) for stage in stages]
        fits = bound and min(held) >= 0.0 and sum(held) <= limit_w
        if (bound == bool(self._held)) and (fits or not bound) and now_s - self._solved_s < EVERY_S:
            return self._held
        self._solved_s = now_s
        watts = greedy(stages, limit_w) if bound else [stage.bounds_w[1] for stage in stages]
        if fits and not self._better(stages, watts, held, limit_w):
            watts = held
        self._held = {stage.name: given for stage, given in zip(stages, watts, strict=True)} if bound else {}
        self.shares = self._told(stages, watts, self._steady(better_move(stages, limit_w, elastic)))
        return self._held

    @staticmethod
    def _better(stages: Sequence[StageLoad], found: Sequence[float], held: Sequence[float], limit_w: float) -> bool:
        """Worth a change: more goodput, or watts that the solution before leaves unused."""
        gains = mesh_goodput(stages, found) > (1.0 + GAIN) * mesh_goodput(stages, held)
        return gains or limit_w - sum(held) > GAIN * limit_w

    @staticmethod
    def _told(stages: Sequence[StageLoad], watts: Sequence[float], move: tuple[str, str] | None) -> list[Share]:
        return [
            Share(
                stage.name,
                given,
                stage.bounds_w[1],
                min(1.0, stage.goodput(given)),
                (stage.able(given + STEP_W) - stage.able(given)) / STEP_W,
                0 if move is None else (stage.name == move[1]) - (stage.name == move[0]),
            )
            for stage, given in zip(stages, watts, strict=True)
        ]

    def _steady(self, move: tuple[str, str] | None) -> tuple[str, str] | None:
        self._looked = self._looked + 1 if move is not None and move == self._move else 0
        self._move = move
        return move if self._looked >= MOVE_AFTER - 1 else None


def better_move(stages: Sequence[StageLoad], limit_w: float, elastic: Collection[str]) -> tuple[str, str] | None:
    """(from, to): one device there instead of here makes the mesh better by more than GAIN; None: no move does."""
    stages = [replace(stage, working=-1.0) for stage in stages]  # work finds all devices of its stage
    best = (1.0 + GAIN) * mesh_goodput(stages, greedy(stages, limit_w))
    found = None
    for giving, taking in permutations([stage for stage in stages if stage.name in elastic], 2):
        if giving.devices <= 1.0:
            continue
        changed = [_with(stage, giving.name, taking.name) for stage in stages]
        reached = mesh_goodput(changed, greedy(changed, limit_w))
        if reached > best:
            best, found = reached, (giving.name, taking.name)
    return found


def _with(stage: StageLoad, giving: str, taking: str) -> StageLoad:
    return replace(stage, devices=stage.devices + (stage.name == taking) - (stage.name == giving))
