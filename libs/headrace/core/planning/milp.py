"""The plan as a mixed-integer linear program for HiGHS: QLM's (arXiv 2407.00047, equations 6-12), corrected.

x[g,i,j]: group i at place j of instance g. Against the released solver: a place may stay empty, and none before a
filled one; a model change costs where models differ and nowhere else; every earlier load counts; the loaded model is
known; the stragglers of the group before a change are waited for. Instances that are alike get their groups in one
order only.

The objective is that of headrace.core.planning.cost. Late share, tardiness and its limit are linear pieces with two
binaries a group, so nothing is lost there. The margin z x sqrt(variance of what lies before) is not linear but
submodular in the set: for every order of the groups the sum of its increments is at most the root, and equal for the
sets that begin the order (extended polymatroid inequalities: Atamtürk and Narayanan, 2008). So the program never counts
more than the true cost, its bound is a bound, and a plan whose orders are among the cuts is counted exactly; a plan
that turns out dearer than the program thought adds its orders, and it is solved again, a few times.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, sqrt
from typing import Any

import numpy as np
from highspy import Highs, HighsLp, HighsModelStatus, HighsStatus, HighsVarType, MatrixFormat, SolutionStatus

from headrace.core.planning.cost import SWAP_COST, WAIT_COST, State, Terms, Work
from headrace.core.planning.lines import Order

GROUPS_MOST = 9  # not pinned; beyond, most problems with late groups do not reach their optimum within 10 s on a core
NODE_LIMIT = 4_000
REL_GAP = 1e-6
_ROUNDS = 4
_NARROW_S = 1e-6  # a group whose requests are late all at once needs no line between none and all
_TOLERANCE = 1e-5  # of HiGHS's own, over many rows


@dataclass(frozen=True, slots=True)
class Solved:
    queues: list[Order] | None  # None: no plan was found within the limits
    cost: float
    bound: float  # no plan costs less
    optimal: bool  # and this one costs that
    rounds: int


def solve(
    terms: Terms,
    known: Sequence[Order],
    node_limit: int = NODE_LIMIT,
    time_limit_s: float = inf,
    rel_gap: float = REL_GAP,
) -> Solved:
    """`known`: a plan to do better than. Without a time limit the answer depends on the arguments alone."""
    program = Program(terms)
    if not program.loose:
        queues = [list(head) for head in terms.pinned]
        return Solved(queues, terms.cost(queues), terms.cost(queues), True, 0)
    program.cut(known)
    program.cut([sorted(queue, key=lambda n: (terms.groups[n].due_s, n)) for queue in _all_everywhere(terms)])
    most = terms.cost(known)
    best: list[Order] | None = None
    cost, bound, rounds = inf, 0.0, 0
    while rounds < _ROUNDS:
        rounds += 1
        found = program.solve(most, node_limit, time_limit_s, rel_gap)
        bound = max(bound, found.bound)
        if found.queues is not None:
            true_cost = terms.cost(found.queues)
            if true_cost < cost:
                cost, best = true_cost, found.queues
        least = min(cost, most)
        if not found.optimal or found.queues is None or least - bound <= _TOLERANCE * max(1.0, least):
            break
        program.cut(found.queues)
    proven = min(cost, most) - bound <= 2 * _TOLERANCE * max(1.0, min(cost, most))
    return Solved(best, cost, bound, proven and cost <= most * (1 + _TOLERANCE) + _TOLERANCE, rounds)


def _all_everywhere(terms: Terms) -> list[Order]:
    pinned = {number for head in terms.pinned for number in head}
    numbers = [number for number in range(len(terms.groups)) if number not in pinned]
    return [
        [*terms.pinned[site], *(n for n in numbers if site in terms.allowed[n])] for site in range(len(terms.sites))
    ]


class _Quiet(Highs):
    """Says nothing. It is started with callbacks otherwise, which are not used, and prints its name then."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.silent()

    def enableCallbacks(self) -> None: ...


class Program:
    """Variables are numbered as they are first named; rows are (terms, least, most)."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        pinned = {number for head in terms.pinned for number in head}
        self.loose = [number for number in range(len(terms.groups)) if number not in pinned]
        self.starts: list[State] = [
            terms.run(site, head, terms.sites[site].start) for site, head in enumerate(terms.pinned)
        ]
        self.able = [[n for n in self.loose if g in terms.allowed[n]] for g in range(len(terms.sites))]
        self._names: dict[tuple[Any, ...], int] = {}
        self._most: list[float] = []
        self._whole: list[int] = []
        self._price: list[float] = []
        self._rows: list[tuple[dict[int, float], float, float]] = []
        self._horizon_s = [self._horizon(g) for g in range(len(terms.sites))]
        self._cuts: set[tuple[int, int, tuple[int, ...], int]] = set()
        for g in range(len(terms.sites)):
            self._places(g)
            self._timeline(g)
        for i in self.loose:
            self._lateness(i)
        self._alike()

    # What is decided.

    def x(self, g: int, i: int, j: int) -> int:
        return self._variable(("x", g, i, j), 1.0, whole=True)

    def _variable(self, name: tuple[Any, ...], most: float = inf, *, whole: bool = False, price: float = 0.0) -> int:
        at = self._names.get(name)
        if at is None:
            at = self._names[name] = len(self._most)
            self._most.append(most)
            self._whole.append(int(whole))
            self._price.append(price)
        return at

    def _row(self, row: dict[int, float], least: float = -inf, most: float = inf) -> None:
        self._rows.append((row, least, most))

    def _places(self, g: int) -> None:
        """One group a place, no gap before it, and a change of model wherever one is."""
        works, able, start = self.terms.works[g], self.able[g], self.starts[g]
        for j in range(len(able)):
            taken = {self.x(g, i, j): 1.0 for i in able}
            self._row(taken, most=1.0)
            if j:
                self._row(taken | {self.x(g, i, j - 1): -1.0 for i in able}, most=0.0)
            for model in sorted({works[i].model for i in able}):
                change = self._variable(("y", g, j, model), 1.0, price=SWAP_COST)
                row = {self.x(g, i, j): 1.0 for i in able if works[i].model == model} | {change: -1.0}
                if j:
                    row |= {self.x(g, i, j - 1): -1.0 for i in able if works[i].model == model}
                self._row(row, most=1.0 if j == 0 and model == start.model else 0.0)

    def _timeline(self, g: int) -> None:
        """begin: of the group at a place, its load over; idle: when the stragglers of those so far are through."""
        works, able, start = self.terms.works[g], self.able[g], self.starts[g]
        for j in range(len(able)):
            begin, idle = self._variable(("begin", g, j)), self._variable(("idle", g, j))
            loads = {
                self._variable(("y", g, j, m)): self.terms.sites[g].load_s[m] for m in {works[i].model for i in able}
            }
            changes = dict.fromkeys(loads, self._horizon_s[g])
            ended = {begin: 1.0} | {change: -each_s for change, each_s in loads.items()}
            idled = {begin: 1.0} | {change: -loads[change] - wide for change, wide in changes.items()}
            if j == 0:
                self._row(ended, least=start.time_s)
                self._row(idled, least=start.time_s + start.straggler_s - self._horizon_s[g])
                self._row({idle: 1.0}, least=start.time_s + start.straggler_s)
            else:
                before, was_idle = self._variable(("begin", g, j - 1)), self._variable(("idle", g, j - 1))
                served = {self.x(g, i, j - 1): -works[i].service_s for i in able}
                self._row(ended | {before: -1.0} | served, least=0.0)
                self._row(idled | {was_idle: -1.0}, least=-self._horizon_s[g])
                self._row({idle: 1.0, was_idle: -1.0}, least=0.0)
            after = {self.x(g, i, j): -works[i].service_s - works[i].straggler_s for i in able}
            self._row({idle: 1.0, begin: -1.0} | after, least=0.0)
            self._margin(g, j, ())

    def _lateness(self, i: int) -> None:
        """A group's wait, its late share (all of it: b), its tardiness up to the limit (reached: c)."""
        terms, most_of = self.terms, self.terms.works[self.terms.allowed[i][0]][i]
        wait = self._variable(("wait", i), price=WAIT_COST * most_of.tardy)
        share = self._variable(("share", i), 1.0, price=most_of.requests)
        tardy = self._variable(("tardy", i), most_of.tardy_most, price=1.0)
        wholly = self._variable(("b", i), 1.0, whole=True)
        limit = self._variable(("c", i), 1.0, whole=True)
        self._row({share: 1.0, wholly: -1.0}, least=0.0)
        self._row({tardy: 1.0, limit: -most_of.tardy_most}, least=0.0)
        everywhere: dict[int, float] = {}
        soonest: dict[int, float] = {wait: 1.0}
        middle: dict[int, float] = {wait: most_of.tardy, tardy: -1.0}
        latest_s = 0.0
        for g in terms.allowed[i]:
            work, horizon_s = terms.works[g][i], self._horizon_s[g]
            for j in range(len(self.able[g])):
                x = self.x(g, i, j)
                begin, margin = self._variable(("begin", g, j)), self._variable(("margin", g, j))
                self._row({wait: 1.0, begin: -1.0, margin: -1.0, x: -horizon_s}, least=-horizon_s)
                everywhere[x] = 1.0
                soonest[x] = -self._soonest(g, work)
                middle[x] = work.tardy * (work.offset_s - 0.5 * work.width_s)
            latest_s = max(latest_s, horizon_s + work.offset_s)
            here = {self.x(g, i, j): 1.0 for j in range(len(self.able[g]))}
            self._late_share(wait, share, wholly, here, work, horizon_s)
        self._row(everywhere, 1.0, 1.0)
        self._row(soonest, least=0.0)
        self._row(middle | {limit: -most_of.tardy * latest_s}, most=0.0)

    def _late_share(
        self, wait: int, share: int, wholly: int, here: dict[int, float], work: Work, horizon_s: float
    ) -> None:
        """wait + offset <= width x share, unless all are late or the group is elsewhere."""
        width_s = work.width_s if work.width_s > _NARROW_S else 0.0
        most_s = max(0.0, horizon_s + work.offset_s)
        row = {wait: 1.0, share: -width_s, wholly: -most_s}
        elsewhere_s = max(0.0, max(self._horizon_s) + work.offset_s)
        self._row(row | dict.fromkeys(here, elsewhere_s), most=elsewhere_s - work.offset_s)

    def _soonest(self, g: int, work: Work) -> float:
        start = self.starts[g]
        load_s = self.terms.sites[g].load_s[work.model] if work.model != start.model else 0.0
        return start.time_s + load_s + self.terms.z * sqrt(start.var + work.own_var)

    def _horizon(self, g: int) -> float:
        """Nothing on the instance waits longer, margin included."""
        start, works, load_s = self.starts[g], self.terms.works[g], self.terms.sites[g].load_s
        time_s, var = start.time_s + start.straggler_s, start.var
        for i in self.able[g]:
            time_s += works[i].service_s + works[i].straggler_s + load_s[works[i].model]
            var += works[i].service_var
        return time_s + self.terms.z * sqrt(var) + 1.0

    def _alike(self) -> None:
        """Of instances the same in all: a group goes to a later one only if one before it is on the instance before."""
        for g in range(1, len(self.terms.sites)):
            if not self._same(g - 1, g):
                continue
            able = self.able[g]
            for at, i in enumerate(able):
                row = {self.x(g, i, j): 1.0 for j in range(len(able))}
                row |= {self.x(g - 1, k, j): -1.0 for k in able[:at] for j in range(len(able))}
                self._row(row, most=0.0)

    def _same(self, g: int, h: int) -> bool:
        terms = self.terms
        if self.able[g] != self.able[h] or self.starts[g] != self.starts[h] or terms.sites[g] != terms.sites[h]:
            return False
        return all(terms.works[g][i] == terms.works[h][i] for i in self.able[g])

    # The chance constraint.

    def cut(self, queues: Sequence[Order]) -> None:
        """Count the margins in these orders exactly."""
        for g, queue in enumerate(queues):
            order = tuple(queue[len(self.terms.pinned[g]) :])
            for j in range(len(self.able[g])):
                self._margin(g, j, order)

    def _margin(self, g: int, j: int, order: tuple[int, ...]) -> None:
        """margin >= z x (increments of the root along the groups before place j, the one there, the rest)."""
        before, here = order[:j], order[j : j + 1]
        if (g, j, before, here[0] if here else -1) in self._cuts:
            return
        self._cuts.add((g, j, before, here[0] if here else -1))
        works, able = self.terms.works[g], self.able[g]
        row = {self._variable(("margin", g, j)): 1.0}
        var = self.starts[g].var
        root = sqrt(var)
        chain = [(i, True) for i in before] + [(i, False) for i in here]
        chain += [(i, False) for i in able if i not in here] + [(i, True) for i in able if i not in before]
        for i, ahead in chain:
            var += works[i].service_var if ahead else works[i].own_var
            step = self.terms.z * (sqrt(var) - root)
            root = sqrt(var)
            for at in range(j) if ahead else (j,):
                row[self.x(g, i, at)] = -step
        self._row(row, least=self.terms.z * sqrt(self.starts[g].var))

    # Solving.

    def solve(self, most: float, node_limit: int, time_limit_s: float, rel_gap: float) -> Solved:
        """`most`: the cost of a plan that is known."""
        fixed = sum(start.cost for start in self.starts)
        solver = _Quiet()
        options = {"threads": 1, "mip_max_nodes": node_limit, "mip_rel_gap": rel_gap, "time_limit": time_limit_s}
        for name, value in options.items():
            assert solver.setOptionValue(name, value) == HighsStatus.kOk, f"HiGHS does not take {name} = {value}"
        assert solver.passModel(self._model((most - fixed) * (1 + 1e-6) + 1e-6)) != HighsStatus.kError
        solver.run()
        status, info = solver.getModelStatus(), solver.getInfo()
        bound = float(info.mip_dual_bound) + fixed if isfinite(info.mip_dual_bound) else 0.0
        if info.primal_solution_status != SolutionStatus.kSolutionStatusFeasible:
            # Nothing below the known cost: that plan is the best there is.
            none_better = status == HighsModelStatus.kInfeasible
            return Solved(None, inf, most if none_better else bound, none_better, 1)
        cost = float(info.objective_function_value) + fixed
        optimal = status == HighsModelStatus.kOptimal
        return Solved(self._read(solver.getSolution().col_value), cost, bound, optimal, 1)

    def _model(self, price_most: float) -> HighsLp:
        """Rows as they were named, and last that the price is to be at most so much."""
        rows = [*self._rows, (dict(enumerate(self._price)), -inf, price_most)]
        model = HighsLp()
        model.num_col_, model.num_row_ = len(self._most), len(rows)
        model.col_cost_, model.col_upper_ = np.array(self._price), np.array(self._most)
        model.col_lower_ = np.zeros(len(self._most))
        model.integrality_ = [HighsVarType.kInteger if whole else HighsVarType.kContinuous for whole in self._whole]
        model.row_lower_, model.row_upper_ = np.array([row[1] for row in rows]), np.array([row[2] for row in rows])
        model.a_matrix_.format_ = MatrixFormat.kRowwise
        model.a_matrix_.start_ = np.cumsum([0, *(len(row) for row, _, _ in rows)])
        model.a_matrix_.index_ = np.array([column for row, _, _ in rows for column in row])
        model.a_matrix_.value_ = np.array([value for row, _, _ in rows for value in row.values()])
        return model

    def _read(self, values: Any) -> list[Order]:
        queues = [list(head) for head in self.terms.pinned]
        for g, able in enumerate(self.able):
            for j in range(len(able)):
                queues[g] += [i for i in able if values[self.x(g, i, j)] > 0.5]
        return queues
