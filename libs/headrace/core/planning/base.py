"""What a planner offers: a place for a new group at once, and now and then a new plan for all."""

from typing import Protocol

from headrace.core.planning.board import Board, Place
from headrace.core.planning.problem import GroupSpec, Plan, Problem


class Planner(Protocol):
    """Pure and without memory: answers depend on the arguments alone."""

    @property
    def name(self) -> str: ...

    @property
    def evicts(self) -> bool:
        """A head that may not wait takes running requests of other groups out of the engine."""
        ...

    @property
    def group_max(self) -> int:
        """Requests that a group may hold; 1: every request is planned for itself. 0: as the queue's settings say."""
        ...

    def insert(self, board: Board, group: GroupSpec, now_s: float) -> Place | None:
        """Where a new group goes, the others staying as they are: on the request path. None: nobody can serve it."""
        ...

    def replan(self, problem: Problem, budget: int) -> Plan:
        """Every group that can be served, in a queue. `budget` bounds the work of planners that search (see there)."""
        ...
