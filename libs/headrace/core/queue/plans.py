"""What the queue manager remembers of planning: what the instances are like, which plan was asked for, how it went."""

from dataclasses import dataclass, field

from headrace.core.planning.board import Board

GROUP_MAX = 256  # requests in a group while no instance has been heard of


@dataclass(slots=True)
class Planning:
    instances_changed: bool = True  # a worker came, went, drains, loads or has loaded
    board: Board | None = None  # the virtual queues as the planner sees them, on the core's clock
    readied_s: float = float("-inf")  # when it was last told what runs
    version: int = 0  # of the instances; a plan for others is not applied
    asked_s: float | None = None  # when the plan in flight was asked for; None: none is
    next_s: float = 0.0  # not before
    wanted: bool = False  # something has come that the present order was not made for
    solved: int = 0
    applied: int = 0
    stale: int = 0
    last_solve_s: float = 0.0
    solve_s: float = 0.0  # of all that were solved: from each question to its answer
    last_cost: float = 0.0
    last_solver: str = ""
    last_optimal: bool = False
    group_most: dict[str, int] = field(default_factory=dict)  # requests in a group, by model
    slot_tokens: dict[str, float] = field(default_factory=dict)  # KV room for each slot, by model

    def group_max(self, model: str) -> int:
        return self.group_most.get(model, GROUP_MAX)

    def slots_of(self, model: str, kv_tokens: int) -> float:
        """How many requests of usual size would find room in the place of one with so many tokens."""
        return max(1.0, kv_tokens / self.slot_tokens.get(model, kv_tokens or 1))
