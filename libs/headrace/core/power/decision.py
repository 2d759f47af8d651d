"""What a step of the governor says: caps, what to do without it, weights, speeds, budgets, and why."""

from dataclasses import dataclass
from typing import Literal

from headrace.core.power.allocator import Share
from headrace.core.power.fleet import Fleet, Floats, Numbers
from headrace.core.power.sharing import REASONS, SAFE, WARM

Action = Literal[
    "cap",
    "uncap",
    "budget",
    "emergency",
    "clear",
    "distrust",
    "trust",
    "admission",
    "move",
    "fallback",
    "learnt",
    "policy",
    "mode",
]


@dataclass(frozen=True, slots=True)
class Entry:
    """Of the audit log."""

    action: Action
    subject: str
    reason: str
    before: float = 0.0
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class RowView:
    name: str
    power_w: float
    budget_w: float  # 0: none
    limit_w: float  # 0: none
    least_w: float
    air_m3s: float  # that its devices need; negative: not known
    air_limit_m3s: float  # of its aisle, shared out by what each row was given; 0: none


@dataclass(frozen=True, slots=True)
class Decision:
    fleet: Fleet
    cap_w: Floats  # [device]; 0: none
    fallback_w: Floats  # [device]; 0: the device's own limit
    why: Numbers  # [device], an index into REASONS
    air: Numbers  # [device], 1: for want of air
    weight: Floats  # [worker]
    slots_share: Floats  # [worker]
    factors: Floats  # [stage, worker]: expected speeds
    rows: tuple[RowView, ...]
    stages: tuple[Share, ...]
    audit: tuple[Entry, ...]
    notes: tuple[str, ...]

    def reason(self, device: int) -> str:
        code = int(self.why[device])
        if code in (0, WARM, SAFE):
            return REASONS[code]
        row = self.rows[int(self.fleet.row[device])]
        if self.air[device]:
            return f"{row.name}: its aisle is short of air: {REASONS[code]}"
        return f"{row.name} keeps to {row.limit_w:.0f} W: {REASONS[code]}"
