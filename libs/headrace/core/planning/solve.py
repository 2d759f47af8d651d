"""The best plan that is found within limits: searched, and where it is small enough proven or improved.

Up to nine groups an enumeration over sets of groups, exact in the same cost, is at least ten times faster than the
mixed-integer program on two or three instances (docs/figures.md), so the program has what is left: few groups on many.
"""

from math import inf

from headrace.core.planning import exact, milp
from headrace.core.planning.cost import Terms
from headrace.core.planning.heuristic import BUDGET, floor, search
from headrace.core.planning.problem import Plan, Problem

ENUMERATED_GROUPS = 9
ENUMERATED_WORK = 4**10  # instances times 4^groups, as its time grows: a second at most [M]


def solve(problem: Problem, node_limit: int = milp.NODE_LIMIT, budget: int = BUDGET, time_limit_s: float = inf) -> Plan:
    """Pure and deterministic without a time limit, which is the program's alone.

    node_limit: of the mixed-integer program; 0: the search alone, nothing is proven. `solver` names what found the
    plan; of two that cost the same, what needs less: the heuristic, the enumeration, the program.
    """
    terms = Terms(problem)
    queues, solver = search(terms, budget), "heuristic"
    cost, bound, optimal = terms.cost(queues), floor(terms), False
    loose = len(terms.groups) - sum(map(len, terms.pinned))
    if loose and node_limit and bound < cost:
        if loose <= ENUMERATED_GROUPS and len(terms.sites) * 4**loose <= ENUMERATED_WORK:
            least, best = exact.optimum(terms)
            if least < cost:
                queues, cost, solver = best, least, "enumeration"
            bound, optimal = least, True
        elif loose <= milp.GROUPS_MOST:
            found = milp.solve(terms, queues, node_limit, time_limit_s)
            bound, optimal = max(bound, found.bound), found.optimal
            if found.queues is not None and found.cost < cost:
                queues, cost, solver = found.queues, found.cost, "milp"
    return Plan(problem.version, terms.ids(queues), cost, optimal or bound >= cost, solver, min(bound, cost))
