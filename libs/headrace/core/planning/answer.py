"""What answers a SolvePlan: the planner that asked for it, so that a baseline is compared by plans of its own."""

from math import inf

from headrace.core.effects import SolvePlan
from headrace.core.planning.headrace import Headrace
from headrace.core.planning.problem import Plan
from headrace.core.planning.registry import PLANNERS
from headrace.core.planning.solve import solve


def answer(effect: SolvePlan, time_limit_s: float = inf) -> Plan:
    """time_limit_s: of the mixed-integer program, where that is used."""
    planner = PLANNERS[effect.planner]
    if isinstance(planner, Headrace):
        return solve(effect.problem, effect.node_limit, effect.moves, time_limit_s)
    return planner.replan(effect.problem, effect.moves)
