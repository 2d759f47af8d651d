"""The best plan that is found within limits: searched, and where it is small enough proven or improved."""

from headrace.core.planning import exact, milp
from headrace.core.planning.cost import Terms
from headrace.core.planning.heuristic import BUDGET, floor, search
from headrace.core.planning.problem import Plan, Problem

ENUMERATED_MOST = 9  # groups: a second at most; only where the program has left it open


def solve(problem: Problem, node_limit: int = milp.NODE_LIMIT, budget: int = BUDGET) -> Plan:
    """Pure and deterministic. `node_limit`: of the mixed-integer program; 0: the search alone, nothing is proven.
    `solver` names what found the plan; of two that cost the same, what needs less: the heuristic, the program, the
    enumeration."""
    terms = Terms(problem)
    queues, solver = search(terms, budget), "heuristic"
    cost, bound, optimal = terms.cost(queues), floor(terms), False
    loose = len(terms.groups) - sum(map(len, terms.pinned))
    if not loose or not node_limit:
        return Plan(problem.version, terms.ids(queues), cost, False, solver, min(bound, cost))
    if loose <= milp.GROUPS_MOST:
        found = milp.solve(terms, queues, node_limit)
        bound, optimal = max(bound, found.bound), found.optimal
        if found.queues is not None and found.cost < cost:
            queues, cost, solver = found.queues, found.cost, "milp"
    if loose <= ENUMERATED_MOST and not optimal:
        least, best = exact.optimum(terms)
        if least < cost:
            queues, cost, solver = best, least, "enumeration"
        bound, optimal = least, True
    return Plan(problem.version, terms.ids(queues), cost, optimal, solver, min(bound, cost))
