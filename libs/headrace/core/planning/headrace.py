"""The planner that the mesh runs: the cheapest place for a new group, a searched plan for all."""

from headrace.core.planning.board import Board, Place
from headrace.core.planning.heuristic import replan
from headrace.core.planning.insert import cheapest
from headrace.core.planning.problem import GroupSpec, Plan, Problem


class Headrace:
    name = "headrace"
    evicts = True
    group_max = 0

    def insert(self, board: Board, group: GroupSpec, now_s: float) -> Place | None:
        return cheapest(board, group, now_s)

    def replan(self, problem: Problem, budget: int) -> Plan:
        return replan(problem, budget)
