"""The budget bench: its schemes keep the limit and do what they say, its figures and verdicts are right by hand; and a
policy is learnt by the command."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headrace.budgets import stages
from headrace.budgets.loads import normalised, stage_work
from headrace.budgets.plan import Plan
from headrace.budgets.plans import facts_of, read_pools, read_tenant
from headrace.budgets.tenants import TENANT_LEAST, Tenant, kept, request_s
from headrace.cli.main import main
from headrace.control.constants import H100
from headrace.core.budget.facts import Utility
from headrace.core.budget.policy import Policy
from headrace.core.errors import InvalidInput
from headrace.profiles import instance
from headrace.workload import fitted
from headrace.workload.arrival import Arrival
from loadtest.benches import budget_game as bench
from loadtest.benches import budget_game_run as run
from loadtest.benches.budget_game_scene import EPOCHS, World, guess, mixture, pool_loads, pools, tenant_loads
from loadtest.benches.budget_game_schemes import allocator, alone, central, equal, live, played, thrift

HUNGRY = Utility((0.0, 2.0), (0.0, 1.0), ((1.0, 1.0), (0.0, 1.0)))  # the more work the more watts
MODEST = Utility((0.0, 2.0), (0.0, 0.3, 1.0), ((1.0, 1.0, 1.0), (0.0, 1.0, 1.0)))


def two() -> World:
    known = (HUNGRY, MODEST)
    return World(("a", "b"), (0.5, 0.5), known, known, (1.0, 0.0), "mean", carry=False)


def loads(world: World, epochs: int = 40) -> np.ndarray:
    rng = np.random.default_rng(3)
    return np.clip(rng.normal(1.0, 0.4, (epochs, len(world.names))), 0.1, 1.8)


def test_central_gives_the_watts_to_whom_they_help_and_equal_does_not() -> None:
    world, fresh, limit = two(), np.full((5, 2), 1.8), np.full(5, 0.5)
    best = live(world, fresh, limit, central(world, world.truth))
    assert best.got[0] == pytest.approx([0.7, 0.3]), "all that the modest one does not need"
    even = live(world, fresh, limit, equal(2))
    assert even.got[0] == pytest.approx([0.5, 0.5])
    assert best.done[:, 0].mean() > even.done[:, 0].mean()
    thrifty = live(world, fresh, limit, thrift(world))
    assert thrifty.got[0] == pytest.approx([0.5, 0.3]), "who needs less takes less"


@pytest.mark.parametrize("world", [two(), pools()])
def test_no_scheme_gives_more_than_there_is(world: World) -> None:
    fresh = loads(world)
    case = run.case_of(world, np.vstack([fresh, fresh, fresh, fresh]), 0.5, 60, 1)
    made = run.policies(case)
    schemes = [*run.simple(world, world.known), *((name, played(policy)) for name, policy in made.items())]
    schemes += [(f"{name} alone", alone(policy)) for name, policy in made.items()]
    for name, scheme in schemes:
        given = live(world, case.play, case.limit, scheme)
        assert run.figures(case, name, given)["violations"] == 0.0, name
        assert (given.got > 0.0).all()
    assert case.limit[60] == pytest.approx(0.375)
    assert case.limit[0] == 0.5


def test_a_clock_that_is_late_can_break_the_limit() -> None:
    world = two()
    case = run.case_of(world, np.vstack([loads(world, 180)]), 0.4, 40, 1)
    policy = run.policies(case)["oftrl selfish"]
    late = live(world, case.play, case.limit, played(policy, late=(0,)))
    assert run.figures(case, "late", late)["violations"] > 0.0, "why workers without a governor stay below the fallback"


def test_the_shipped_allocator_gives_the_narrowest_stage_most() -> None:
    given = live(pools(), np.array([[0.3, 1.2, 0.5]]), np.array([0.5]), allocator(pools()))
    assert given.got[0].argmax() == 1
    assert given.got[0] @ np.array(pools().weights) <= 0.5 + 1e-9


def test_what_a_stage_does_not_do_comes_again() -> None:
    given = live(pools(), np.full((3, 3), 1.0), np.full(3, 0.4), equal(3))
    assert (given.loads[1, :2] > 1.0).all()
    assert given.loads[1] == pytest.approx(1.0 + given.loads[0] * (1.0 - given.done[0]))


def test_a_gain_by_leaving_by_hand() -> None:
    """Both ask for 0.3 of a limit of 0.8: there is room for the hungry one to have all it wants."""
    world = two()
    case = run.case_of(world, np.full((4, 2), 2.0), 0.8, 1, 1)
    fixed = np.array([0.3, 0.3])
    given = live(world, case.play, case.limit, lambda _epoch, _loads, _limit: (fixed, fixed))
    assert run.figures(case, "", given)["gain"] == pytest.approx(1.0 - 0.3), "1 and 0.3 are 1.3 of the 1.6 there are"


def test_a_liar_gains_with_a_central_allocator() -> None:
    world = replace(two(), truth=(HUNGRY, HUNGRY), known=(HUNGRY, HUNGRY))
    case = run.case_of(world, np.full((4, 2), 1.8), 0.6, 1, 1)
    assert run.lie(case) > 0.2


def test_who_knows_the_mean_alone_takes_all_for_alike() -> None:
    world = two()
    assert guess(world)[0] == guess(world)[1]
    assert guess(world)[0].of(np.array(1.0), np.array(0.3)) == pytest.approx((0.65 + 1.0) / 2, abs=0.02)


def rows(goodput: float, energy: float, violations: float = 0.0) -> list[dict[str, float]]:
    return [
        {"goodput": goodput + at / 1e3, "energy": energy + at / 1e3, "violations": violations, "worst": 0.0}
        for at in range(4)
    ]


@pytest.mark.parametrize(
    ("learnt", "ships"),
    [
        (rows(0.95, 0.5), True),
        (rows(0.91, 0.5), False),
        (rows(0.90, 0.45), True),
        (rows(0.85, 0.40), False),
        (rows(0.95, 0.5, violations=1.0), False),
    ],
)
def test_a_verdict(learnt: list[dict[str, float]], ships: bool) -> None:
    """3 % of goodput, or of energy at no loss of goodput, without a violation more."""
    found = bench.verdict({"central": rows(0.90, 0.5), "(other)": rows(1.0, 0.1), "oftrl selfish": learnt})
    assert found["ships"] is ships
    assert list(found["against"]) == ["central"]


def test_loads_are_the_same_for_a_seed_and_have_the_mean_that_is_asked() -> None:
    for of in (tenant_loads, pool_loads):
        first = of(2)
        assert first.shape == (EPOCHS, 3)
        assert (first == of(2)).all()
        assert (first >= 0.0).all()
        assert 0.4 < first.mean() < 0.9


def test_work_of_a_trace_by_hand() -> None:
    llm = instance("h100/llama-3.1-8b/tp1")
    arrivals = [Arrival(0.0, 1000, 10), Arrival(25.0, 1000, 20)]
    work = stage_work(arrivals, llm, None, 10.0)
    assert work.shape == (3, 3)
    assert work[1].tolist() == [0.0, 0.0, 0.0]
    assert work[2, 1] == pytest.approx(work[0, 1]), "the same prompt"
    assert work[2, 2] == pytest.approx(2 * work[0, 2], rel=0.01), "twice the answer"
    assert normalised(work[:, 1:], 0.5).mean(axis=0) == pytest.approx([0.5, 0.5])
    with pytest.raises(InvalidInput, match="has no work"):
        normalised(work, 0.5)


def test_a_stage_s_utility_is_the_power_law() -> None:
    half = stages.utility(H100, "prefill").of(np.array(1.0), np.array(0.5))
    assert half == pytest.approx(1 / 1.3, abs=0.01), "at half the power a prompt takes 1.3 times as long"
    assert stages.utility(H100, "decode").of(np.array(1.0), np.array(0.5)) == pytest.approx(1.0)


def test_a_tenant_with_more_watts_keeps_more_promises() -> None:
    tenant = Tenant("code", fitted.CODE_INPUT, fitted.CODE_OUTPUT, 0.6, 0.1)
    work_s = request_s(tenant)
    assert 0.5 < mixture(tenant) < 0.95
    least, most = (kept(tenant, 0.7, watts, 1, 8.0, work_s) for watts in (TENANT_LEAST, 1.0))
    assert least < 0.5 < 0.9 < most


def test_the_command_writes_a_policy_that_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, out = tmp_path / "trace.csv", tmp_path / "policy.bin"
    lines = [f"2023-11-16 18:{at // 60:02}:{at % 60:02}.0000000,{400 + at % 900},{20 + at % 50}" for at in range(600)]
    trace.write_text("\n".join(("TIMESTAMP,ContextTokens,GeneratedTokens", *lines)))
    words = ["governor", "learn-policy", "--trace", str(trace), "--pools", "prefill=2,decode=3", "--out", str(out)]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    policy = Policy.from_bytes(out.read_bytes())
    assert policy.facts.names == ("prefill", "decode")
    assert told["states"] == policy.facts.states == 18
    assert told["gap"] == pytest.approx(policy.gap, abs=1e-6)
    assert main([*words[:-1], str(tmp_path), "--json"]) == 2, "a folder is no file"
    assert main(["governor", "learn-policy", "--out", str(out)]) == 2
    assert "either a scenario or a trace" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["encode", "encode=0,prefill=1", "encode=1", "warp=1,decode=2", "prefill=x,decode=1"])
def test_pools_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        read_pools(text)


def test_tenants_that_make_no_sense_are_refused() -> None:
    assert read_pools("decode=3,encode=1") == {"encode": 1, "decode": 3}
    with pytest.raises(InvalidInput, match="IDS=TRACE"):
        read_tenant(Plan(), "a-*=trace.csv")
    with pytest.raises(InvalidInput, match="gpu 'tpu'"):
        facts_of(Plan(gpu="tpu", scenario="burst"))
