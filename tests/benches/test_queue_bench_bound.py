"""The queue bench's bound: least seconds that no iteration undercuts, prices beside the linear program, policies."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linprog

from headrace.core.cost import StepWork
from headrace.core.slo import SloClass
from headrace.sim.fleet import kind_of
from headrace.workload.arrival import Arrival
from headrace.workload.scenario import Scenario
from loadtest.benches.queue_bound import BUCKET_S, Span, Windows, bound
from loadtest.benches.queue_clairvoyant import Search
from loadtest.benches.queue_clairvoyant import carry_out as searched
from loadtest.benches.queue_costs import Costs, costs_of, longest_step_s
from loadtest.benches.queue_runs import Cell, simulated
from loadtest.benches.queue_workloads import WORKLOADS

SHORT_S = 300.0
OVERLOAD_RPS = 2.2  # twice what W_A's fleet carries


def overloaded() -> tuple[Cell, list[Arrival]]:
    cell = Cell("W_A", 2.0, OVERLOAD_RPS, SHORT_S)
    return cell, cell.arrivals(1)


# --- least seconds ---


@pytest.mark.parametrize("kv_share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", ["W_A", "W_C"])
def test_the_parts_of_an_iteration_never_add_up_to_more_than_it_takes(name: str, kv_share: float) -> None:
    """Random batches: one decoding step of each running request and whole prompts that one iteration holds."""
    scenario, rng = WORKLOADS[name].scenario(), np.random.default_rng(5)
    assert scenario.fleet is not None
    model = WORKLOADS[name].models[0]
    for pool_at, pool in enumerate(scenario.fleet.pools):
        kind = kind_of(pool, model)
        for _ in range(60):
            running = int(rng.integers(0, kind.slots))
            prompts = [int(each) for each in rng.integers(1, kind.chunk_tokens, 4)]
            while sum(prompts) > kind.chunk_tokens or len(prompts) + running > kind.slots:
                prompts.pop()
            if not prompts and not running:
                continue
            contexts = [int(each) for each in rng.integers(10, 2_000, running)]
            # An answer of two tokens costs one decoding iteration behind its prompt.
            decoding = [Arrival(0.0, size, 2, max_tokens=64, model=model) for size in contexts]
            filling = [Arrival(0.0, size, 1, max_tokens=64, model=model) for size in prompts]
            costs = costs_of(scenario, [*decoding, *filling], kv_share)[pool_at]
            parts_s = costs.decode_s[:running].sum() + costs.prefill_s[running:].sum()
            pairs = sum(size * (size + 1) // 2 for size in prompts)
            work = StepWork(sum(prompts), pairs, running, sum(contexts) + running)
            assert parts_s <= kind.step.step_s(work) * (1 + 1e-9)


def test_a_full_batch_that_only_decodes_is_counted_to_the_last_second() -> None:
    """There the bound is tight: ten sequences share an iteration."""
    scenario = WORKLOADS["W_A"].scenario()
    assert scenario.fleet is not None
    kind = kind_of(scenario.fleet.pools[0], "llama-2-70b")
    ten = [Arrival(0.0, 500, 2, max_tokens=64, model="llama-2-70b")] * kind.slots
    work = StepWork(decode_sequences=kind.slots, decode_context_tokens=kind.slots * 501)
    assert costs_of(scenario, ten)[0].decode_s.sum() == pytest.approx(kind.step.step_s(work), rel=1e-6)


def test_a_model_that_a_pool_does_not_serve_is_impossible_there() -> None:
    costs = costs_of(WORKLOADS["W_A"].scenario(), [Arrival(0.0, 10, 10, max_tokens=10, model="qwen2-72b")])
    assert all(np.isinf(each.total_s).all() for each in costs)


# --- prices ---


def windows(first: list[int], due: int, end: int) -> Windows:
    """All of one class."""
    sort = np.zeros(len(first), np.int64)
    return Windows(np.array(first), Span(sort, (due,)), Span(sort, (end,)))


def one_pool(prefill_s: list[float], decode_s: list[float]) -> tuple[Costs, ...]:
    return (Costs("only", 1, np.array(prefill_s), np.array(decode_s)),)


def test_with_room_for_all_everybody_may_be_kept() -> None:
    assert bound(one_pool([1.0] * 10, [1.0] * 10), windows([0] * 10, 1, 1)).kept == pytest.approx(10)


def test_what_does_not_fit_into_a_bucket_is_not_kept() -> None:
    """30 requests of 2 s in a bucket of 20 s: ten."""
    found = bound(one_pool([1.0] * 30, [1.0] * 30), windows([0] * 30, 1, 1))
    assert 10 - 1e-9 <= found.kept <= 10.5


def test_the_longest_are_left_out_first() -> None:
    """20 s: all of the ten short ones (1 s), and one of the five that take 10 s."""
    found = bound(one_pool([0.5] * 10 + [5.0] * 5, [0.5] * 10 + [5.0] * 5), windows([0] * 15, 1, 1))
    assert 11 - 1e-9 <= found.kept <= 11.5
    assert found.gain[:10].min() > found.gain[10:].max()


def test_without_the_answer_more_is_possible() -> None:
    costs, when = one_pool([1.0] * 60, [9.0] * 60), windows([0] * 60, 1, 2)
    assert bound(costs, when, decode=False).kept > bound(costs, when).kept + 10


def test_any_number_of_steps_is_valid_and_many_come_near_the_linear_program() -> None:
    rng = np.random.default_rng(3)
    first = np.sort(rng.integers(0, 6, 80)).tolist()
    prefill_s, decode_s = rng.uniform(0.2, 2.0, (2, 2, 80)), rng.uniform(0.5, 6.0, (2, 2, 80))
    costs = tuple(Costs(f"p{at}", 1, prefill_s[0, at], decode_s[0, at]) for at in range(2))
    when = windows(first, 2, 4)
    best = _linear_program(costs, first, 2, 4)
    for steps in (1, 10, 400):
        assert bound(costs, when, steps=steps).kept >= best - 1e-6
    assert bound(costs, when, steps=400).kept <= 1.03 * best


def _linear_program(costs: tuple[Costs, ...], first: list[int], due: int, end: int) -> float:
    """The relaxation itself: y kept, shares of prefill and decoding in each pool and bucket."""
    buckets, count = max(first) + end, len(first)
    columns: list[tuple[int, int, int, int, float]] = []  # request, part, pool, bucket, seconds
    for request, begin in enumerate(first):
        for part, width in enumerate((due, end)):
            for pool, each in enumerate(costs):
                seconds = float((each.prefill_s, each.decode_s)[part][request])
                columns += [(request, part, pool, bucket, seconds) for bucket in range(begin, begin + width)]
    shares = np.zeros((2 * count, count + len(columns)))
    room = np.zeros((len(costs) * buckets, count + len(columns)))
    for at, (request, part, pool, bucket, seconds) in enumerate(columns):
        shares[2 * request + part, count + at] = 1.0
        room[pool * buckets + bucket, count + at] = seconds
    for request in range(count):
        shares[2 * request : 2 * request + 2, request] = -1.0
    wanted = np.concatenate((-np.ones(count), np.zeros(len(columns))))
    limits = [(0.0, 1.0)] * count + [(0.0, None)] * len(columns)
    full = np.full(len(room), BUCKET_S)
    return -float(linprog(wanted, A_ub=room, b_ub=full, A_eq=shares, b_eq=np.zeros(2 * count), bounds=limits).fun)


# --- windows ---


def test_a_window_counts_every_bucket_that_it_touches() -> None:
    scenario = replace(WORKLOADS["W_A"].scenario(), classes=(SloClass("interactive", 20.0, 120.0, 10),))
    when = Windows.of(scenario, [Arrival(39.9, 10, 10, slo_class="interactive")])
    assert (when.first.tolist(), when.due.widths, when.end.widths) == ([1], (2,), (8,))


def test_what_is_never_interrupted_has_a_window_of_its_answers_length() -> None:
    cell, asked = overloaded()
    scenario: Scenario = cell.scenario()
    free, unbroken = Windows.of(scenario, asked), Windows.of(scenario, asked, unbroken=True)
    most = [free.end.widths[sort] for sort in free.end.sort]
    own = [unbroken.end.widths[sort] for sort in unbroken.end.sort]
    assert all(mine <= whole for mine, whole in zip(own, most, strict=True))
    assert min(own) < max(most)
    assert longest_step_s(scenario, asked) > 0.5  # an A10's, with a chunk of prefill


# --- policies ---


@pytest.mark.timeout(120)
@pytest.mark.parametrize("policy", ["fcfs", "edf", "ssjf+oracle", "shortest-prompt"])
def test_no_policy_keeps_more_than_the_bounds_allow(policy: str) -> None:
    """None of these evicts: the bound for unbroken answers holds too."""
    cell, asked = overloaded()
    kept = simulated(cell, policy, 1, asked, {}).met().sum()
    costs = costs_of(cell.scenario(), asked)
    for unbroken in (False, True):
        assert kept <= bound(costs, Windows.of(cell.scenario(), asked, unbroken=unbroken), steps=60).kept


@pytest.mark.timeout(240)
def test_the_search_finds_a_schedule_between_edf_and_the_bound() -> None:
    cell, asked = overloaded()
    row = searched(Search(cell, 1, replays=3, steps=60))
    edf = simulated(cell, "edf", 1, asked, {}).met().mean()
    assert edf <= row["attainment"] <= row["bounds"]["complete"] <= row["bounds"]["first_token"]
    assert row["replays"] <= 3
