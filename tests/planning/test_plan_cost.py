"""What a plan costs, by hand; and that the board counts what cost.py counts."""

from dataclasses import replace

import numpy as np
import pytest

from headrace.core.instance import Pace
from headrace.core.planning.board import Board, Place
from headrace.core.planning.cost import (
    SWAP_COST,
    TARDY_TARGETS_MOST,
    TARDY_WEIGHT,
    WAIT_COST,
    Outlook,
    Site,
    Terms,
    outlook,
    plan_cost,
    stragglers_s,
)
from headrace.core.planning.headrace import Headrace
from headrace.core.planning.heuristic import replan
from headrace.core.planning.problem import GroupSpec, InstanceModel, InstanceSpec, Problem
from loadtest.benches.planner_problems import random_problem

# 10 slots: an iteration takes 0.01 + 10 x 0.001 = 0.02 s for 10 tokens, 2 ms a token; a prompt token takes 1 ms.
PACE = Pace(step_s=0.01, sequence_s=0.001, prefill_token_s=0.001)


def instance(loaded: str = "a", *, ready_s: float = 0.0, idle_s: float = 0.0, ready_var: float = 0.0) -> InstanceSpec:
    models = tuple(InstanceModel(name, load_s, 10, PACE) for name, load_s in (("a", 0.0), ("b", 5.0)))
    return InstanceSpec("llm-0", loaded, models, ready_s, ready_var, idle_s)


def group(number: int, model: str = "a", count: int = 10, due_s: float = 100.0, **more: float) -> GroupSpec:
    """1 s of prefill and 4 s of decoding: 5 s of service, of which a tenth lies behind the last of 10 requests."""
    return GroupSpec(number, model, count, due_s, 20.0, 1_000.0, 2_000.0, more.get("output_var", 0.0))


def seen(queue: list[GroupSpec], site: InstanceSpec, z: float = 0.0, drain_share: float = 0.0) -> list[Outlook]:
    return outlook(Problem(1, tuple(queue), (site,), z, drain_share), [[each.id for each in queue]])


TIMELINES = [
    ("one after the other", instance(), [group(1), group(2)], [0.0, 5.0]),
    ("after what runs", instance(ready_s=3.0), [group(1), group(2)], [3.0, 8.0]),
    ("a load", instance(), [group(1), group(2, "b")], [0.0, 10.0]),
    ("a load at once", instance(), [group(1, "b")], [5.0]),
    ("a load waits until nothing runs", instance(ready_s=1.0, idle_s=4.0), [group(1, "b")], [9.0]),
    ("what runs ends behind a group of its model", instance(idle_s=7.0), [group(1), group(2, "b")], [0.0, 12.0]),
    ("coming back takes as long", instance(), [group(1, "b"), group(2)], [5.0, 15.0]),
]


@pytest.mark.parametrize(("what", "site", "queue", "begins"), TIMELINES, ids=[row[0] for row in TIMELINES])
def test_when_groups_begin(what: str, site: InstanceSpec, queue: list[GroupSpec], begins: list[float]) -> None:
    assert [each.begin_s for each in seen(queue, site)] == pytest.approx(begins)


def test_stragglers_are_waited_for() -> None:
    """200 tokens each: half of them at the pace of a half empty batch, 0.015 s."""
    first, second = seen([group(1), group(2, "b")], instance(), drain_share=1.0)
    assert second.begin_s == pytest.approx(first.begin_s + 5.0 + 200 * 0.015 * 0.5 + 5.0)
    assert stragglers_s(200.0, PACE.step_s, PACE.sequence_s, 10, 1) == pytest.approx(200 * 0.0105 * 0.95)


LATENESS = [
    # Of group 1, which begins at 0: first tokens at 0.1 to 4.6 s.
    ("all on time", 4.7, 0.0, 0.0, 0.0),
    ("a third late", 3.1, 0.0, 1 / 3, 0.0),
    ("two thirds late", 1.6, 0.0, 2 / 3, 0.75),
    ("all late", -10.0, 0.0, 1.0, 10.1 + 2.25),
    ("later ones are due later", 0.0, 4.5, 1.0, 0.1),
    ("later ones have more time", 0.0, 5.4, 0.1 / 0.9, 0.0),
]


@pytest.mark.parametrize(("what", "due_s", "spread_s", "share", "tardiness_s"), LATENESS, ids=[r[0] for r in LATENESS])
def test_who_is_late(what: str, due_s: float, spread_s: float, share: float, tardiness_s: float) -> None:
    (found,) = seen([replace(group(1, due_s=due_s), due_spread_s=spread_s)], instance())
    assert (found.late_share, found.tardiness_s) == pytest.approx((share, tardiness_s))


def test_the_chance_constraint_counts_all_that_lies_before() -> None:
    """2 ms a token: 250,000 tokens squared are 1 s squared. A middle request waits for half of 0.9 of its own group."""
    queue = [group(1, output_var=250_000.0), group(2, output_var=250_000.0)]
    margins = [each.margin_s for each in seen(queue, instance(ready_var=2.0), z=1.28)]
    assert margins == pytest.approx([1.28 * (2 + 0.45) ** 0.5, 1.28 * (3 + 0.45) ** 0.5])


def test_what_a_plan_costs() -> None:
    problem = Problem(1, (group(1), group(2, "b", due_s=-10.0)), (instance(),), 0.0, 0.0)
    tardiness_s = 10 + 10.1 + 2.25
    expected = (
        SWAP_COST + 10 * (1 + TARDY_WEIGHT * tardiness_s / 20.0) + 10 * WAIT_COST * TARDY_WEIGHT / 20.0 * (0 + 10)
    )
    assert plan_cost(problem, [[1, 2]]) == pytest.approx(expected)
    late = Problem(1, (group(2, due_s=-1e6),), (instance(),), 0.0, 0.0)
    assert plan_cost(late, [[2]]) == pytest.approx(10 * (1 + TARDY_WEIGHT * TARDY_TARGETS_MOST))


def test_a_worker_that_says_nothing_of_its_pace_is_still_planned_for() -> None:
    site = InstanceSpec("llm-0", "a", (InstanceModel("a", 0.0, 0, Pace()),))
    first, second = seen([group(1), group(2)], site)
    assert second.begin_s > first.begin_s


@pytest.mark.parametrize("seed", range(8))
def test_the_board_counts_the_same(seed: int) -> None:
    problem = random_problem(seed, 20, 3, load=0.8)
    if seed % 2:  # what runs now is waited for longer than the first groups are served
        sites = tuple(replace(site, idle_s=site.idle_s + 40.0) for site in problem.instances)
        problem = replace(problem, instances=sites)
    plan = replan(problem, 0)
    board = Board.of(problem, plan.queues)
    line, expected = board.timeline(0.0), outlook(problem, plan.queues)
    assert line.begin_s == pytest.approx([each.begin_s for each in expected])
    assert [share for _, share in board.late_share(0.0)] == pytest.approx([each.late_share for each in expected])
    assert float(line.cost.sum() + SWAP_COST * line.swap.sum()) == pytest.approx(plan.cost)
    ends = [Terms(problem).run(g, queue, site.start) for g, (queue, site) in enumerate(_ended(problem, plan.queues))]
    assert line.end_s == pytest.approx([end.time_s for end in ends])
    assert line.end_straggler_s == pytest.approx([end.straggler_s for end in ends])


def _ended(problem: Problem, queues: tuple[tuple[int, ...], ...]) -> list[tuple[list[int], Site]]:
    terms = Terms(problem)
    return list(zip(terms.numbers(queues), terms.sites, strict=True))


def test_a_board_that_is_changed_step_by_step_is_the_board_of_the_outcome() -> None:
    problem = random_problem(3, 30, 3)
    queues = replan(problem, 0).queues
    board = Board.of(problem, queues)
    rng, left = np.random.default_rng(0), {group.id: group for group in problem.groups}
    for _ in range(12):
        gone = int(rng.choice(sorted(left)))
        board.remove(gone)
        del left[gone]
    for number in sorted(left)[:5]:
        left[number] = replace(left[number], count=left[number].count + 3, pinned=False)
        board.change(left[number])
    board.set_ready(1, 9.0, 1.0, 11.0)
    sites = tuple(
        replace(site, ready_s=9.0, ready_var=1.0, idle_s=11.0) if number == 1 else site
        for number, site in enumerate(problem.instances)
    )
    after = replace(problem, groups=tuple(left.values()), instances=sites)
    rest = [[each for each in queue if each in left] for queue in queues]
    expected = Board.of(after, rest)
    assert [board.queue(site) for site in range(3)] == rest
    assert board.timeline(0.0).wait_s == pytest.approx(expected.timeline(0.0).wait_s)
    assert board.place(rest[2][-1]) == (2, len(rest[2]) - 1)
    assert board.place(-5) is None


@pytest.mark.parametrize("seed", range(4))
def test_a_board_made_at_once_is_the_one_made_group_by_group(seed: int) -> None:
    problem = random_problem(seed, 40, 3)
    queues = replan(problem, 0).queues
    at_once, one_by_one = Board.of(problem, queues), Board(problem.instances, problem.z, problem.drain_share)
    by_id = {group.id: group for group in problem.groups}
    for instance, queue in enumerate(queues):
        for position, each in enumerate(queue):
            one_by_one.put(Place(instance, position), by_id[each])
    assert (at_once.columns == one_by_one.columns).all(), "to the last bit: a simulation must not tell them apart"
    assert at_once.first.tolist() == one_by_one.first.tolist()
    assert at_once.groups == one_by_one.groups


@pytest.mark.parametrize("seed", range(12))
def test_a_new_group_on_all_instances_at_once_is_it_on_each(seed: int) -> None:
    problem = random_problem(seed, 30, 5)
    board = Board(problem.instances, problem.z, (0.0, 1.0)[seed % 2])
    for each in (
        *problem.groups,
        replace(problem.groups[0], only=3),
        replace(problem.groups[1], instance=2, pinned=True),
    ):
        guest = board.guest(each)
        for at in range(len(problem.instances)):
            work = board.work(at, each)
            assert guest.served[at] == (work is not None)
            if work is not None:
                model, *rest = work
                assert guest.block[:, at].tolist() == pytest.approx([*rest, board.load_s(at, model), model, at])


def test_of_those_in_time_whoever_was_promised_more_goes_first() -> None:
    """Though the patient ones are served sooner, and came before: waits are never as expected."""
    patient = replace(group(1, due_s=3_500.0), target_s=3_600.0, prompt_tokens=100.0, output_mean=1_000.0)
    urgent = group(2, due_s=100.0)
    problem = Problem(1, (patient, urgent), (instance(ready_s=2.0),))
    assert all(each.late_share == 0.0 for each in outlook(problem, [[1, 2]])), "both orders keep all promises"
    assert replan(problem).queues == ((2, 1),)
    board = Board.of(replace(problem, groups=(replace(patient, instance=0, position=0),)), [[1]])
    assert Headrace().insert(board, urgent, 0.0) == Place(0, 0)
