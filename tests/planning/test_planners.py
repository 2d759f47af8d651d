"""What every planner keeps to, on random problems; and that the searched plan is near the best one."""

import itertools
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.core.planning import exact, milp
from headrace.core.planning.base import Planner
from headrace.core.planning.board import Board, Place
from headrace.core.planning.cost import Terms, plan_cost
from headrace.core.planning.edf import Edf
from headrace.core.planning.fcfs import Fcfs
from headrace.core.planning.headrace import Headrace
from headrace.core.planning.heuristic import floor, replan, search
from headrace.core.planning.lines import Lines
from headrace.core.planning.problem import GroupSpec, Problem
from headrace.core.planning.shepherd import Shepherd, goodput
from headrace.core.planning.solve import solve
from loadtest.benches.planner_problems import random_problem

PLANNERS: list[Planner] = [Headrace(), Fcfs(), Edf(), Shepherd()]
UNHURRIED = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Some groups stand in queues, some have begun, some are bound to an instance, some nobody can serve."""
    count, sites = draw(st.integers(0, 14)), draw(st.integers(1, 4))
    problem = random_problem(
        draw(st.integers(0, 10_000)), max(1, count), sites, load=draw(st.sampled_from([0.2, 0.7, 1.5])), placed=True
    )
    return replace(problem, groups=tuple(draw(placements(problem, group)) for group in problem.groups[:count]))


@st.composite
def placements(draw: st.DrawFn, problem: Problem, group: GroupSpec) -> GroupSpec:
    what = draw(st.sampled_from(["free", "new", "free", "pinned", "bound", "foreign"]))
    if what == "new":
        return replace(group, instance=-1, position=-1)
    if what == "foreign":
        return replace(group, model="nobody's")
    able = [g for g, site in enumerate(problem.instances) if site.of(group.model) is not None]
    if what == "free" or not able:
        return group
    site = draw(st.sampled_from(able))
    return replace(group, instance=site, pinned=what == "pinned", only=site if what == "bound" else -1)


def served(problem: Problem, group: GroupSpec) -> list[int]:
    return [g for g, site in enumerate(problem.instances) if site.of(group.model) is not None and group.only in (-1, g)]


def check(problem: Problem, queues: tuple[tuple[int, ...], ...]) -> None:
    by_id = {group.id: group for group in problem.groups}
    placed = [each for queue in queues for each in queue]
    assert sorted(placed) == sorted(group.id for group in problem.groups if served(problem, group))
    for site, queue in enumerate(queues):
        assert all(site in served(problem, by_id[each]) for each in queue)
        pinned = [by_id[each].pinned for each in queue]
        assert pinned == sorted(pinned, reverse=True), "a pinned group was overtaken"
        assert all(by_id[each].instance == site for each in queue if by_id[each].pinned)


@UNHURRIED
@given(problem=problems(), shuffle=st.randoms(use_true_random=False))
@pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: str(planner.name))
def test_every_plan_is_whole(planner: Planner, problem: Problem, shuffle: Random) -> None:
    """Each group once, where it can be served, pinned ones first; whatever order the groups are named in."""
    plan = planner.replan(problem, 300)
    check(problem, plan.queues)
    assert plan.cost == pytest.approx(plan_cost(replace(problem, groups=_placed(problem)), plan.queues))
    groups = list(problem.groups)
    shuffle.shuffle(groups)
    assert planner.replan(replace(problem, groups=tuple(groups)), 300) == plan


def _placed(problem: Problem) -> tuple[GroupSpec, ...]:
    return tuple(group for group in problem.groups if served(problem, group))


@UNHURRIED
@given(problem=problems())
def test_more_work_never_makes_a_plan_dearer_than_where_it_began(problem: Problem) -> None:
    costs = [replan(problem, budget).cost for budget in (0, 100, 2_000)]
    assert costs[1] <= costs[0] + 1e-9
    assert costs[2] <= costs[0] + 1e-9
    assert replan(problem, 0).bound <= costs[2] + 1e-9


@UNHURRIED
@given(problem=problems(), number=st.integers(0, 1_000))
@pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: str(planner.name))
def test_a_new_group_gets_a_place(planner: Planner, problem: Problem, number: int) -> None:
    plan = planner.replan(problem, 0)
    board = Board.of(problem, plan.queues)
    new = replace(random_problem(number, 1, 1).groups[0], id=9)
    place = planner.insert(board, new, 0.0)
    if not served(problem, new):
        assert place is None
        return
    assert place is not None
    assert place.instance in served(problem, new)
    heads = board.heads(place.instance)
    overtakes = isinstance(planner, Shepherd) and place.position == 0
    assert overtakes or heads <= place.position <= len(board.queue(place.instance))
    board.put(place, new)
    assert board.place(new.id) == place


@pytest.mark.parametrize("drain_share", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(12))
def test_the_place_of_a_new_group_is_the_cheapest(seed: int, drain_share: float) -> None:
    problem = replace(random_problem(seed, 24, 3, load=(0.4, 0.8, 1.5)[seed % 3]), drain_share=drain_share)
    plan = replan(problem, 0)
    board = Board.of(problem, plan.queues)
    rng = np.random.default_rng(seed)
    for number in range(4):
        new = replace(random_problem(int(rng.integers(1_000)), 1, 1, load=0.1).groups[0], id=number)
        place = Headrace().insert(board, new, 0.0)
        costs = _cost_of_each_place(problem, plan.queues, new)
        if place is None:
            assert not costs
        else:
            assert costs[place] == pytest.approx(min(costs.values()), rel=0.01, abs=1e-6)


def _cost_of_each_place(problem: Problem, queues: tuple[tuple[int, ...], ...], new: GroupSpec) -> dict[Place, float]:
    wider, found = replace(problem, groups=(*problem.groups, new)), {}
    for site in served(problem, new):
        for position in range(len(queues[site]) + 1):
            changed = [list(queue) for queue in queues]
            changed[site].insert(position, new.id)
            found[Place(site, position)] = plan_cost(wider, changed)
    return found


def brute_force(terms: Terms) -> float:
    """Every order of the groups, cut everywhere."""
    size, sites = len(terms.groups), len(terms.sites)
    best = float("inf")
    for order in itertools.permutations(range(size)):
        for cuts in itertools.combinations_with_replacement(range(size + 1), sites - 1):
            edges = (0, *cuts, size)
            queues = [order[edges[g] : edges[g + 1]] for g in range(sites)]
            if all(g in terms.allowed[number] for g, queue in enumerate(queues) for number in queue):
                best = min(best, terms.cost(queues))
    return best


SMALL = [(4, 1, 0.3), (4, 2, 0.6), (4, 2, 1.2), (4, 3, 0.8), (5, 2, 0.5), (5, 1, 1.0)]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("groups", "instances", "load"), SMALL)
@pytest.mark.parametrize("seed", range(3))
def test_the_optimum_is_the_best_of_all_plans(groups: int, instances: int, load: float, seed: int) -> None:
    """By trying all: for the enumeration, for the mixed-integer program, and for the bounds."""
    terms = Terms(random_problem(seed, groups, instances, load=load))
    best = brute_force(terms)
    cost, queues = exact.optimum(terms)
    assert (cost, terms.cost(queues)) == pytest.approx((best, best))
    poor = search(terms, 0)
    found = milp.solve(terms, poor)
    assert floor(terms) <= found.bound + 1e-4
    assert found.bound <= best * (1 + 1e-4) + 1e-4
    assert found.optimal
    assert min(found.cost, terms.cost(poor)) == pytest.approx(best, rel=1e-4, abs=1e-4)


@pytest.mark.timeout(600)
def test_the_program_finds_the_optimum_by_itself() -> None:
    """From a plan that is bad on purpose: all on one instance, in the order of their ids reversed."""
    problem = random_problem(1, 4, 2, load=0.6)
    alike = replace(problem, instances=(problem.instances[1], replace(problem.instances[1], id="twin")))
    terms = Terms(replace(alike, groups=tuple(g for g in alike.groups if served(alike, g))))
    bad = [list(reversed(range(len(terms.groups)))), []]
    best = brute_force(terms)
    assert terms.cost(bad) > best * 1.01
    found = milp.solve(terms, bad)
    assert found.optimal
    assert found.cost == pytest.approx(best, rel=1e-4, abs=1e-4)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(4))
def test_solve_is_never_worse_than_the_search(seed: int) -> None:
    problem = random_problem(seed, 5, 2, load=0.8)
    plan = solve(problem, node_limit=200, budget=50)
    check(problem, plan.queues)
    assert plan.cost <= replan(problem, 50).cost + 1e-9
    assert plan.bound <= plan.cost + 1e-9
    assert plan.solver in ("heuristic", "milp", "enumeration")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(4))
def test_where_enumerating_is_too_much_the_program_proves_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(seed, 4, 2, load=0.8)
    enumerated = solve(problem, budget=1)
    monkeypatch.setattr("headrace.core.planning.solve.ENUMERATED_WORK", 0)
    programmed = solve(problem, budget=1)
    assert (enumerated.optimal, programmed.optimal) == (True, True)
    assert programmed.cost == pytest.approx(enumerated.cost, rel=1e-4)
    assert programmed.solver != "enumeration"


@pytest.mark.timeout(600)
def test_the_search_is_near_the_optimum() -> None:
    gaps = []
    for seed in range(16):
        terms = Terms(random_problem(seed, 7, 1 + seed % 3, load=(0.4, 1.0)[seed % 2]))
        best, _ = exact.optimum(terms)
        gaps.append(terms.cost(search(terms, 3_000)) / max(best, 1e-9) - 1)
    assert min(gaps) >= -1e-9
    assert sorted(gaps)[len(gaps) // 2] < 0.02


@pytest.mark.parametrize("seed", range(6))
def test_shepherd_takes_the_batch_with_the_most_goodput(seed: int) -> None:
    """Batch by batch, each asked by itself what it is worth then."""
    problem = random_problem(seed, 25, 3, load=1.2)
    terms = Terms(problem)
    by_id = {group.id: (number, group) for number, group in enumerate(terms.groups)}
    taken: set[int] = set()
    for site, queue in enumerate(Shepherd().replan(problem, 0).queues):
        state, spec = terms.sites[site].start, problem.instances[site]
        for each in queue:
            number, group = by_id[each]
            if not group.pinned:
                worth = goodput(spec, group, state.time_s)
                behind = queue[queue.index(each) + 1 :]
                assert all(goodput(spec, by_id[other][1], state.time_s) <= worth for other in behind)
            state, spec = terms.run(site, (number,), state), replace(spec, model=group.model)
        taken.update(queue)
    assert taken == set(by_id)


@UNHURRIED
@given(problem=problems(), limit=st.sampled_from([0.0, 0.02, 0.5, 3.0, float("inf")]), data=st.data())
def test_what_groups_add_is_counted_or_more_than_the_limit(problem: Problem, limit: float, data: st.DataObject) -> None:
    """A place is given up early only if the whole line would have said so, too."""
    terms = Terms(replace(problem, groups=_placed(problem)))
    lines = Lines(terms, 0)
    numbers = [number for number in range(len(terms.groups)) if not terms.groups[number].pinned]
    for number in numbers[2:]:
        lines.append(number)
    block = [number for number in numbers[:2] if terms.allowed[number] == terms.allowed[numbers[0]]]
    for site in terms.allowed[block[0]] if block else []:
        line = lines.lines[site]
        at = data.draw(st.integers(line.pinned, len(line.order)))
        added = lines.price(line, at, [*block, *line.order[at:]]) - line.cost
        found = lines.added(line, at, block, limit)
        assert found == pytest.approx(added, abs=1e-9) or (found > limit and added > limit - 1e-9)
