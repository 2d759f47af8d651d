"""A plan that is there at once: earliest due first with an eye on swaps, the costliest late groups last, then moves.

When not all can be on time, the groups with most work for each request are made late: that leaves most requests on time
(Moore and Hodgson's rule for one machine, 1968, with work per request for the length of a job). Deterministic, and
bounded by `budget`: how many groups may be counted in all moves (see headrace.core.planning.lines); building a plan to
start from is not bounded by it, so there is always one.
"""

from heapq import heappop, heappush

from headrace.core.planning.cost import State, Terms
from headrace.core.planning.lines import Lines, Order, Snapshot
from headrace.core.planning.moves import improve, perturb
from headrace.core.planning.problem import Plan, Problem

BUDGET = 30_000  # tens of milliseconds
_WORK_ORDER_MOST = 200  # groups up to which a plan that begins with the lightest groups is built, too


def replan(problem: Problem, budget: int = BUDGET) -> Plan:
    terms = Terms(problem)
    queues = search(terms, budget)
    return Plan(problem.version, terms.ids(queues), terms.cost(queues), solver="heuristic", bound=floor(terms))


def search(terms: Terms, budget: int = BUDGET) -> list[Order]:
    """Numbers of groups for each instance."""
    lines = Lines(terms, 0)
    starts: list[tuple[float, int, Snapshot]] = []
    for build in (_as_it_stands, _by_due, _spare_the_light, _by_work):
        if build is not _by_work or len(terms.groups) <= _WORK_ORDER_MOST:
            build(lines)
            starts.append((lines.cost, len(starts), lines.snapshot()))
    starts.sort(key=lambda start: start[:2])
    best_cost, _, best = starts[0]
    lines.left = budget
    for _, _, start in starts[:2]:  # the second best is another hill, with half of what is left
        lines.restore(start)
        kept = lines.left // 2
        lines.left -= kept
        improve(lines)
        lines.left = max(0, lines.left) + kept
        if lines.cost < best_cost:
            best_cost, best = lines.cost, lines.snapshot()
    lines.restore(best)
    perturb(lines)
    return lines.queues()


def floor(terms: Terms) -> float:
    """No plan costs less: every group as if it were alone, its model loaded at once, wherever that is cheapest."""
    return sum(min(_alone(terms, site, number) for site in sites) for number, sites in enumerate(terms.allowed))


def _alone(terms: Terms, site: int, number: int) -> float:
    start, model = terms.sites[site].start, terms.works[site][number].model
    load_s = terms.sites[site].load_s[model] if model != start.model else 0.0
    return terms.run(site, (number,), State(start.time_s + load_s, start.var, model, 0.0, 0.0)).cost


def _as_it_stands(lines: Lines) -> None:
    """The present order, and what is new where it is cheapest."""
    lines.clear()
    terms = lines.terms
    new = []
    for number in sorted(_loose(terms), key=terms.standing):
        group = terms.groups[number]
        if group.instance in terms.allowed[number] and group.position >= 0:
            line = lines.lines[group.instance]
            lines.set_tail(line, len(line.order), [number])
        else:
            new.append(number)
    for number in new:
        lines.insert([number])


def _by_due(lines: Lines) -> None:
    lines.clear()
    groups = lines.terms.groups
    for number in sorted(_loose(lines.terms), key=lambda number: (groups[number].due_s, number)):
        lines.insert([number])


def _by_work(lines: Lines) -> None:
    lines.clear()
    terms = lines.terms
    for number in sorted(_loose(terms), key=lambda number: (_lightest(terms, number), number)):
        lines.insert([number])


def _spare_the_light(lines: Lines) -> None:
    """From the plan at hand: the heaviest groups that make others late go behind all others, lightest first."""
    terms = lines.terms
    dropped = []
    for line in lines.lines:
        kept, out = _kept_on_time(terms, line.site, line.order, line.pinned)
        lines.set_tail(line, line.pinned, kept)
        dropped += out
    for number in sorted(dropped, key=lambda number: (_lightest(terms, number), number)):
        lines.append(number)


def _kept_on_time(terms: Terms, site: int, order: Order, pinned: int) -> tuple[Order, Order]:
    """Moore and Hodgson: in this order, as soon as one is late the heaviest so far goes. A group counts as late when
    its middle request is; swaps that a group brings go with it."""
    works, start = terms.works[site], terms.run(site, order[:pinned], terms.sites[site].start)
    time_s, model = start.time_s, start.model
    heaviest: list[tuple[float, int, float]] = []
    for number in order[pinned:]:
        work = works[number]
        load_s = terms.sites[site].load_s[work.model] if work.model != model else 0.0
        begin_s, model = time_s + load_s, work.model
        heappush(heaviest, (-work.service_s / work.requests, number, load_s + work.service_s))
        time_s += load_s + work.service_s
        if begin_s + work.offset_s > 0.5 * work.width_s:
            time_s -= heappop(heaviest)[2]
    kept = {number for _, number, _ in heaviest}
    loose = order[pinned:]
    return [number for number in loose if number in kept], [number for number in loose if number not in kept]


def _lightest(terms: Terms, number: int) -> float:
    """Work for each request, where it is least."""
    return min(terms.works[site][number].service_s for site in terms.allowed[number]) / terms.groups[number].count


def _loose(terms: Terms) -> Order:
    pinned = {number for head in terms.pinned for number in head}
    return [number for number in range(len(terms.groups)) if number not in pinned]
