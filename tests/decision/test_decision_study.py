"""The study's figures from given rows: which costs are beside which, what a missing run becomes, the report's data."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra [controllers]")
pytest.importorskip("peft", reason="needs the extra [controllers]")


from headrace.characterize.document import Document
from loadtest.reproduce.decision_figures import Study
from loadtest.reproduce.decision_runs import Experts, Job, Trained
from loadtest.reproduce.decision_transformer import QUICK, Plan, document

TASKS = ("cm1", "he1")


def told(*costs: float, **more: Any) -> dict[str, Any]:
    return {"costs": list(costs), "violations": 0.25, "loss": 0.1, **more}


def expert_row() -> dict[str, Any]:
    names = ("none", "lqg", "hinf", "mpc", "pid")
    return {name: told(10.0, 20.0) for name in names} | {
        "relative": told(1.0, 3.0),
        "expected": 15.0,
        "known_state": 12.0,
        "wrong": [told(50.0, 50.0), told(20.0, 20.0), told(30.0, 30.0)],
        "wrong_shown": [9.0, 8.0, 7.0],
    }


def rows(plan: Plan, left_out: Sequence[str] = ()) -> list[tuple[Job, dict[str, Any]]]:
    found: list[tuple[Job, dict[str, Any]]] = []
    for job in plan.jobs(2):
        if isinstance(job, Experts):
            found.append((job, expert_row()))
        elif job.body not in left_out and job.part not in left_out:
            found.append(
                (job, {"trained": 7, "tasks": {task: _task(job) for task in job.tasks}, "step_ms": [1.0, 3.0]})
            )
    return found


def _task(job: Trained) -> dict[str, Any]:
    factor = {"scratch": 1.0, "lm_lora": 2.0, "random_lora": 3.0}[job.body]
    more = {
        "guarded": told(10.0, 20.0),
        "fallbacks": 0.5,
        "relative": told(2.0, 6.0),
        "targets": {"3": told(30.0, 60.0)},
    }
    return told(10.0 * factor, 20.0 * factor, **(more if job.more else {}))


PLAN = Plan(tasks=TASKS)


def test_costs_stand_beside_the_expert_of_the_same_plant() -> None:
    study = Study(TASKS, PLAN.bodies, rows(PLAN))
    assert study.demos == (1, 5, 10, 50, 100)
    assert study.ratio("lm_lora", 5, "he1").ratio == 2.0
    assert study.between("lm_lora", "scratch", "he1").ratio == 2.0
    assert study.zero_shot("scratch", "cm1", "padded").ratio == 2.0  # of the relative's own expert
    middle, best = study.wrong("he1")
    assert middle["costs"] == [30.0, 30.0]
    assert best["costs"] == [30.0, 30.0]  # whose demonstrations cost 7
    assert study.step_p99_ms()["lm_lora"] == pytest.approx(2.98)


def test_the_data_have_the_agreed_keys() -> None:
    data = document(PLAN, rows(PLAN)).data
    assert set(data) == {"tasks", "step_p99_ms"}
    one = data["tasks"]["cm1"]
    assert {"expert", "cost_ratio", "mismatch_ratio", "zero_shot_ratio", "violations"} <= set(one)
    assert one["cost_ratio"]["random_lora"] == {"1": 3.0, "5": 3.0, "10": 3.0, "50": 3.0, "100": 3.0}
    assert one["mismatch_ratio"] == pytest.approx(1.0)  # 20 and 40 beside 30 and 30


@pytest.mark.parametrize(
    "left_out", [("random_lora",), ("lm_lora", "random_lora"), ("wrong", "padded", "context", "longer")]
)
def test_what_was_not_run_is_a_dash(left_out: tuple[str, ...]) -> None:
    made = document(PLAN, rows(PLAN, left_out))
    assert isinstance(made, Document)
    assert not any(
        "nan" in cell for each in made.sections for table in each.tables for row in table.rows for cell in row
    )
    study = Study(TASKS, PLAN.bodies, rows(PLAN, left_out))
    assert math.isnan(study.ratio("lm_lora", 5, "he1").ratio) == ("lm_lora" in left_out)


def test_a_quick_run_has_the_same_sections_but_those_that_cost_most() -> None:
    names = [each.name for each in document(QUICK, rows(QUICK)).sections]
    assert names == ["experts", "demonstrations", "initialisation", "targets", "zero-shot", "guard", "steps"]


def test_the_plan_is_what_the_issue_asks_for() -> None:
    jobs = Plan().jobs(20)
    trained = [job for job in jobs if isinstance(job, Trained)]
    assert {(job.body, job.demos) for job in trained if job.part == "demos"} == {
        (body, demos) for body in ("scratch", "lm_lora", "random_lora") for demos in (1, 5, 10, 50, 100)
    }
    assert len(set(jobs)) == len(jobs)
    assert all(job.seeds >= 20 for job in jobs)
