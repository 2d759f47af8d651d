"""The bench vllm-requests: its loader, its errors, its two schedulers in closed form, and 40 measured requests."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.core.cost import Curve, StepCost, StepWork
from loadtest.benches import vllm_requests
from loadtest.benches.vllm_requests_data import MeasuredError, MeasuredRun, Times, find, load, measured
from loadtest.benches.vllm_requests_errors import compared, errors, mean_of, order
from loadtest.benches.vllm_requests_fit import START, apart, fit_costs, held_tokens, memory_binds
from loadtest.benches.vllm_requests_policy import Scheduler, Sequence, preemptions, vllm_like
from loadtest.benches.vllm_requests_run import Setting, simulated
from loadtest.benches.vllm_requests_subjects import SUBJECTS, Efficiency, roofline

SMALL, LARGE = SUBJECTS  # one GPU where memory binds; two GPUs where slots do
COST = StepCost(
    tokens_s=Curve((0.0, 4096.0), (0.02, 0.43)),
    prefill_pair_s=1e-8,
    decode_sequence_s=1e-4,
    decode_context_token_s=1e-7,
)
SLOW = StepCost(Curve((0.0, 4096.0), (0.035, 0.69)), 2e-8, 2e-4, 2e-7)  # far from where a fit begins
ENGINES = {"ours": simulated, "vllm": vllm_like}


def record(**changes: Any) -> dict[str, Any]:
    """One line of the file; the clocks of client and engine are 1,000 s apart."""
    plain = {
        "run": "r",
        "input_toks": 100,
        "output_toks": 11,
        "arrival_time": 1_010.0,
        "queued_ts": 10.0,
        "scheduled_ts": 10.5,
        "first_token_ts": 11.0,
        "last_token_ts": 12.0,
    }
    return plain | changes


def made_run(prompts: list[int], outputs: list[int], gap_s: float = 0.0) -> MeasuredRun:
    """Arrivals and lengths alone; what it measured is not to be asked for."""
    count = len(prompts)
    none = np.zeros(count)
    return MeasuredRun(
        "made", np.arange(count, dtype=np.float64) * gap_s, none, none, none, np.array(prompts), np.array(outputs)
    )


# --- the loader ---


def test_clocks_are_aligned_by_the_request_that_waited_least() -> None:
    rows = [
        record(arrival_time=1_010.2, queued_ts=10.5, scheduled_ts=10.6, first_token_ts=11.2, last_token_ts=13.2),
        record(),
    ]
    run = measured("r", rows)
    assert run.arrival_s.tolist() == pytest.approx([0.0, 0.2])  # in order of arrival; the second waited 0.3 s outside
    assert run.times.ttft_s.tolist() == pytest.approx([1.0, 1.0])
    assert run.times.tbt_s.tolist() == pytest.approx([0.1, 0.2])
    assert run.times.jct_s.tolist() == pytest.approx([2.0, 3.0])
    assert run.concurrent == 2
    assert run.first(1).times.jct_s.tolist() == pytest.approx([2.0])


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["nothing"], "line 1: is not JSON"),
        ([json.dumps(record()), json.dumps({"run": "r"})], "line 2, field input_toks: is missing"),
        (["[1]"], "line 1, field run: is missing"),
        ([json.dumps(record(first_token_ts=12.5))], "run r, request 0: times run backwards"),
        ([json.dumps(record(output_toks=0))], "run r, request 0"),
    ],
)
def test_a_file_that_cannot_be_used_says_where(tmp_path: Path, lines: list[str], told: str) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text("\n".join(lines))
    with pytest.raises(MeasuredError, match=told):
        load(file)


def test_missing_data_are_told_and_measure_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert vllm_requests.main(["--json", "--data", str(tmp_path / "none.jsonl")]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert "none.jsonl" in err
    assert "--data" in err


# --- errors ---


@pytest.mark.parametrize(
    ("seen", "made", "p50", "mape", "median"),
    [
        ([1.0, 2.0, 4.0], [1.0, 2.0, 4.0], 0.0, 0.0, 0.0),
        ([1.0, 2.0, 4.0], [1.1, 2.2, 4.4], 0.1, 0.1, 0.1),  # slower: more than 0
        ([1.0, 2.0, 4.0], [0.5, 1.0, 2.0], -0.5, 0.5, 0.5),
        ([1.0, 2.0, 4.0], [1.0, 2.0, 10.0], 0.0, 0.5, 0.0),  # one alone is wrong: the mean tells, the median does not
    ],
)
def test_errors(seen: list[float], made: list[float], p50: float, mape: float, median: float) -> None:
    found = errors(np.array(seen), np.array(made))
    assert found["p50_s"]["error"] == pytest.approx(p50)
    assert (found["mape"], found["median_ape"]) == (pytest.approx(mape), pytest.approx(median))


@pytest.mark.parametrize(
    ("made", "tau"),
    [([1.0, 2.0, 3.0], 1.0), ([3.0, 2.0, 1.0], -1.0), ([1.0, 3.0, 2.0], 1 / 3), ([2.0, 2.0, 2.0], None)],
)
def test_order(made: list[float], tau: float | None) -> None:
    found = order(np.array([1.0, 2.0, 3.0]), np.array(made))
    assert found == (None if tau is None else pytest.approx(tau, abs=1e-4))


def test_comparison_and_naive_control_keep_to_their_rows() -> None:
    rows = [record(arrival_time=1_010.0 + at, queued_ts=10.0 + at) for at in (0.0, 0.5)]
    rows[1] |= {"scheduled_ts": 12.0, "first_token_ts": 13.5, "last_token_ts": 15.5}
    run = measured("r", rows)
    naive = mean_of(run, slice(0, 1))
    found = compared(run, naive, slice(1, 2))
    assert found["requests"] == 1
    assert found["ttft"]["p50_s"] == {"measured": 3.0, "simulated": 1.0, "error": pytest.approx(-0.6667)}
    assert found["jct"]["p50_s"]["error"] == pytest.approx(2 / 5 - 1)
    assert found["output_tokens_per_s"]["error"] == pytest.approx(5 / 2 - 1)  # 11 tokens in 2 s for 5 s
    assert found["ttft_kendall_tau"] is None


def test_residuals_are_signed_logarithms() -> None:
    one, two = np.ones(1), np.full(1, 2.0)
    assert apart(Times(two, one, one, one), Times(one, one, two, one)).tolist() == pytest.approx(
        [np.log(2), 0.0, -np.log(2)]
    )


# --- costs ---


def test_roofline_is_the_data_sheets_times_what_is_reached() -> None:
    bare, half = roofline(SMALL, Efficiency()), roofline(SMALL, Efficiency(0.5, 0.5, iteration_s=0.003))
    assert bare.tokens_s(1) == pytest.approx((16.06e9 - 1.05e9) / 1008e9, rel=0.01)  # weights, without looked-up rows
    assert bare.tokens_s(2048) == pytest.approx(2 * 6.98e9 * 2048 / 165e12, rel=0.01)
    assert bare.decode_context_token_s == pytest.approx(131_072 / 1008e9)
    assert half.tokens_s(1) == pytest.approx(2 * bare.tokens_s(1) + 0.003)
    assert half.prefill_pair_s == pytest.approx(2 * bare.prefill_pair_s)


def test_two_gpus_halve_the_work_and_pay_their_link() -> None:
    one, two = replace(LARGE, gpus=1), LARGE
    bare, fast = roofline(two, Efficiency()), roofline(two, Efficiency(link=1e9))
    assert fast.tokens_s(2048) == pytest.approx(roofline(one, Efficiency()).tokens_s(2048) / 2, rel=1e-6)
    moved_s = 2048 * 5120 * 2 / 25e9
    assert bare.tokens_s(2048) - fast.tokens_s(2048) == pytest.approx(128 * (2 * 10e-6 + moved_s), rel=1e-6)


def test_reserved_tokens_admit_as_many_as_growing_ones() -> None:
    run = made_run([100, 100], [200, 200])
    assert held_tokens(SMALL, run, slice(None)) == SMALL.kv_tokens * 300 // 200


# --- the two schedulers ---


@pytest.mark.parametrize("engine", ENGINES)
def test_a_lone_request_takes_its_steps(engine: str) -> None:
    run = made_run([3000], [5])
    times = ENGINES[engine](SMALL, run, Setting(COST, SMALL.kv_tokens))
    prefill_s = COST.step_s(StepWork(2048, 2048 * 2049 // 2)) + COST.step_s(StepWork(952, 952 * (2 * 2048 + 953) // 2))
    decode_s = sum(COST.step_s(StepWork(0, 0, 1, 3000 + at)) for at in range(1, 5))
    assert times.ttft_s[0] == pytest.approx(prefill_s)
    assert times.jct_s[0] == pytest.approx(prefill_s + decode_s)
    assert times.tbt_s[0] == pytest.approx(decode_s / 4)


def test_the_schedulers_agree_where_there_is_room() -> None:
    """They differ in how an iteration is filled and in one iteration before a freed slot is taken: a few hundredths."""
    run = made_run([500, 300, 800, 200, 900, 400] * 5, [60, 90, 70, 120, 80, 50] * 5, gap_s=0.1)
    ours, theirs = (engine(LARGE, run, Setting(COST, LARGE.kv_tokens)) for engine in ENGINES.values())
    assert np.median(np.abs(ours.jct_s / theirs.jct_s - 1)) < 0.05
    assert preemptions(LARGE, run, Setting(COST, LARGE.kv_tokens)) == 0


def test_memory_that_runs_out_preempts_the_last_to_come() -> None:
    scheduler = Scheduler(slots=8, kv_tokens=64, budget=2048)
    first, second = Sequence(0, 30, 60, 30), Sequence(1, 30, 60, 30)
    scheduler.waiting.extend([first, second])
    assert scheduler.schedule() == [first, second]
    assert scheduler.free == 0
    for sequence in (first, second):
        sequence.computed, sequence.length = 32, 33  # its two blocks are full
    assert scheduler.schedule() == [first]
    assert (list(scheduler.waiting), second.blocks, second.computed) == ([second], 0, 0)
    assert (scheduler.preemptions, scheduler.free) == (1, 1)


def test_preemption_costs_time_and_loses_nobody() -> None:
    run = made_run([200] * 20, [300] * 20)
    tight, wide = Setting(COST, 20 * 250), Setting(COST, 20 * 600)
    assert preemptions(SMALL, run, tight) > 0
    times = vllm_like(SMALL, run, tight)
    assert not np.isnan(times.jct_s).any()
    assert times.end_s.max() > vllm_like(SMALL, run, wide).end_s.max()


def test_a_fit_finds_what_made_the_data() -> None:
    """Measured by the simulator itself with known costs: the fit predicts the half that it did not see."""
    run = made_run([700, 300, 1500, 400] * 5, [40, 80, 30, 60] * 5, gap_s=0.15)
    times = simulated(SMALL, run, Setting(SLOW, SMALL.kv_tokens))
    first_s = run.arrival_s + times.ttft_s
    run = replace(run, scheduled_s=run.arrival_s, first_token_s=first_s, end_s=run.arrival_s + times.jct_s)
    seen, unseen = run.halves
    fitted = fit_costs(SMALL, run, seen, simulated, kv_tokens=SMALL.kv_tokens, evaluations=12)
    found, unfitted = (
        compared(run, simulated(SMALL, run, setting), unseen)
        for setting in (fitted.setting, Setting(roofline(SMALL, START), SMALL.kv_tokens))
    )
    for key in ("ttft", "tbt", "jct"):
        assert found[key]["mape"] < unfitted[key]["mape"] / 5, key


# --- the measured requests ---


@pytest.fixture(scope="module")
def runs() -> dict[str, MeasuredRun]:
    if not find().is_file():
        pytest.skip("the measured requests are not beside this checkout")
    return load(find())


def test_the_data_are_what_the_subjects_say(runs: dict[str, MeasuredRun]) -> None:
    assert set(runs) == {subject.run for subject in SUBJECTS}
    assert [len(run) for run in runs.values()] == [300, 300]
    assert memory_binds(SMALL, runs[SMALL.run])
    assert runs[LARGE.run].concurrent == LARGE.slots


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.key)
def test_forty_requests_end_to_end(runs: dict[str, MeasuredRun], subject: Any) -> None:
    run = runs[subject.run].first(40)
    reached = roofline(subject, Efficiency(0.6, 0.7, iteration_s=0.003, sequence_s=5e-5))
    made = simulated(subject, run, Setting(reached, held_tokens(subject, run, slice(None))))
    slow = StepCost(Curve(reached.tokens_s.xs, tuple(2 * y for y in reached.tokens_s.ys)))
    found = compared(run, made, slice(None))
    assert (np.diff(run.arrival_s + made.ttft_s) >= 0).all()  # first come, first served, as vLLM's are
    assert found["ttft_kendall_tau"] > 0
    assert -0.7 < found["jct"]["p50_s"]["error"] < 0.5  # the 260 that came later slowed the measured ones alone
    slower = simulated(subject, run, Setting(slow, subject.kv_tokens))
    assert slower.ttft_s.mean() > made.ttft_s.mean()
