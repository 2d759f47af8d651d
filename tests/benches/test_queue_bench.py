"""The queue bench but for its bound: workloads, rows, verdicts, tuning, and what its live cells tell a mesh."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headrace.core.slo import classes_of
from headrace.engines.families import family
from headrace.profiles import engine_profile
from headrace.sim.fleet import kind_of
from headrace.sim.policy import Policy
from headrace.sim.sweep import Outcome
from headrace.v1.governor_pb2 import Telemetry
from loadtest.benches import queue_live, queue_tuning
from loadtest.benches.queue_figures import figures, table, verdicts
from loadtest.benches.queue_live import Live
from loadtest.benches.queue_rows import work
from loadtest.benches.queue_runs import Cell, Run, carry_out, policies
from loadtest.benches.queue_workloads import CLASSES, MAX_TOKENS, SLOTS, WORKLOADS, unhurried
from loadtest.rows import Rows

# --- workloads ---


@pytest.mark.parametrize("name", WORKLOADS)
def test_requests_are_the_same_at_every_rate_but_for_when_they_come(name: str) -> None:
    slow, fast = (WORKLOADS[name].arrivals(rate_rps, 7, 600.0) for rate_rps in (0.5, 2.0))
    assert len(fast) > 3 * len(slow) > 0
    for one, other in zip(slow, fast, strict=False):
        assert one.at_s == pytest.approx(4 * other.at_s)
        assert (one.input_tokens, one.output_tokens) == (other.input_tokens, other.output_tokens)
        assert (one.slo_class, one.model) == (other.slo_class, other.model)


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_request_fits_wherever_it_may_be_served(name: str) -> None:
    workload = WORKLOADS[name]
    fleet = workload.scenario().fleet
    assert fleet is not None
    kinds = [kind_of(pool, workload.models[0]) for pool in fleet.pools]
    room = {each.model: each for kind in kinds for each in (kind, *kind.others)}
    assert set(workload.models) <= room.keys()
    for arrival in workload.arrivals(1.0, 3, 3_600.0):
        kind, whole = room[arrival.model], arrival.input_tokens + MAX_TOKENS
        assert arrival.output_tokens <= MAX_TOKENS
        assert whole <= min(kind.context_tokens, kind.blocks * kind.block_tokens)
        assert kind.slots == SLOTS


@pytest.mark.parametrize("name", WORKLOADS)
def test_models_and_classes_come_in_their_shares(name: str) -> None:
    workload = WORKLOADS[name]
    assert sum(part.share for part in workload.parts) == pytest.approx(1.0)
    asked = workload.arrivals(2.0, 1, 7_200.0)
    for part in workload.parts:
        seen = sum((each.model, each.slo_class) == (part.model, part.slo_class) for each in asked) / len(asked)
        assert seen == pytest.approx(part.share, abs=0.02)
    megas = sum(each.input_tokens >= 8_000 for each in asked) / len(asked)
    assert megas == pytest.approx(workload.mega.share, abs=0.01)


def test_unhurried_requests_are_the_same_in_the_slowest_class() -> None:
    asked = WORKLOADS["W_A"].arrivals(1.0, 1, 100.0)
    assert {each.slo_class for each in unhurried(asked)} == {"batch-2"}
    assert [each.input_tokens for each in unhurried(asked)] == [each.input_tokens for each in asked]


# --- policies and runs ---


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_simulator_knows_every_policy(name: str) -> None:
    for simulated in policies(WORKLOADS[name]).values():
        Policy.of(simulated)


def test_a_fleet_of_several_models_is_compared_with_baselines_that_load_them() -> None:
    assert policies(WORKLOADS["W_B"])["fcfs"] == "vq-fcfs"
    assert policies(WORKLOADS["W_A"])["fcfs"] == "fcfs"
    assert "headrace_without_swap" not in policies(WORKLOADS["W_A"])


@pytest.mark.timeout(120)
def test_a_row_has_what_the_report_needs() -> None:
    row = carry_out(Run(Cell("W_A", 0.5, 0.5, 200.0), "fcfs", 1))
    assert row["attainment"] == pytest.approx(1.0)
    assert set(row["by_class"]) == set(CLASSES)
    assert 0 < row["throughput_rps"] <= 0.6
    assert 0 < row["utilisation"] <= 1
    assert row["swaps"] == row["evictions"] == 0


# --- rows ---


@dataclass(frozen=True, slots=True)
class Counted:
    """Work that says how often it was done."""

    calls: list[str]

    def __call__(self, jobs: Any, work: Any, *, processes: int, seen: Any) -> None:
        for at, job in enumerate(jobs):
            self.calls.append(str(job))
            failed = job.policy == "broken"
            seen(Outcome(at, job, None if failed else {"attainment": float(job.seed)}, "why" if failed else ""))


def test_rows_that_are_there_are_not_run_again(tmp_path: Path) -> None:
    done = Counted([])
    cell, path = Cell("W_A", 1.0, 1.0), tmp_path / "rows.jsonl"
    one, two, broken = Run(cell, "fcfs", 1), Run(cell, "fcfs", 2), Run(cell, "broken", 1)
    assert [row["attainment"] for _, row in Rows(path, work, done).of([one])] == [1.0]
    again = Rows(path, work, done)
    assert [row["attainment"] for _, row in again.of([two, broken, one])] == [2.0, 1.0]
    assert done.calls == [str(one), str(two), str(broken)]
    assert again.failed == [f"{broken}: why"]


# --- tuning ---


def test_planner_and_baseline_have_as_many_settings_on_seeds_of_their_own() -> None:
    assert len({len(grid) for grid in queue_tuning.GRIDS.values()}) == 1
    assert not set(queue_tuning.SEEDS) & set(range(1, 21))
    names = tuple(queue_tuning.GRIDS)
    jobs = queue_tuning.jobs({"W_A": 1.0}, 100.0, names)
    rows = [(job, {"attainment": 0.9 if dict(job.settings).get("shepherd_factor") == 2.0 else 0.5}) for job in jobs]
    chosen = queue_tuning.chosen(rows, names)["W_A"]
    assert chosen["shepherd"]["settings"] == {"shepherd_factor": 2.0}
    assert chosen["headrace"]["settings"] == dict(queue_tuning.GRIDS["headrace"][0])  # of equals the default


# --- figures ---


def row(attainment: float, throughput_rps: float = 1.0, **more: Any) -> dict[str, Any]:
    by_class = dict.fromkeys(CLASSES, attainment)
    plain = {"requests": 10, "utilisation": 0.9, "swaps": 0, "evictions": 0, "plans": 0}
    return {"attainment": attainment, "by_class": by_class, "throughput_rps": throughput_rps, **plain, **more}


BOUNDS = {"first_token": 1.0, "complete": 0.98, "unbroken": 0.96}


def cell_of(**attained: float) -> dict[str, Any]:
    rows = {name: {seed: row(each) for seed in (1, 2)} for name, each in attained.items() if name != "clairvoyant"}
    search: dict[str, Any] = {"bounds": BOUNDS, "let_in": 1.0, "replays": 10}
    if "clairvoyant" in attained:
        rows["clairvoyant"] = {seed: row(attained["clairvoyant"], **search) for seed in (1, 2)}
    return figures(rows)


def test_the_clairvoyant_figure_is_the_best_that_is_known() -> None:
    told = cell_of(fcfs=0.2, headrace=0.9, clairvoyant=0.8)
    assert told["clairvoyant"]["attainment"] == 0.9
    assert told["clairvoyant"]["searched"] == 0.8
    assert told["bound"]["attainment"] == 0.98


@pytest.mark.parametrize(
    ("attained", "wanted"),
    [
        pytest.param({"headrace": 0.95, "clairvoyant": 1.0}, {"of_clairvoyant": True}, id="just enough"),
        pytest.param({"headrace": 0.94, "clairvoyant": 1.0}, {"of_clairvoyant": False}, id="too little"),
        pytest.param({"headrace": 0.80, "edf": 0.805}, {"over_edf_points": True}, id="half a point below"),
        pytest.param({"headrace": 0.80, "edf": 0.82}, {"over_edf_points": False}, id="two points below"),
        pytest.param(
            {"headrace": 0.90, "fcfs": 0.40, "clairvoyant": 0.9},
            {"of_clairvoyant": True, "over_fcfs_points": True, "gain_where_fcfs_fails": True},
            id="fcfs fails, and the planner does not",
        ),
    ],
)
def test_what_is_wanted_is_judged(attained: dict[str, float], wanted: dict[str, bool]) -> None:
    said = verdicts("W_A", cell_of(**attained))
    assert {name: each["holds"] for name, each in said.items()} == wanted


def test_a_table_says_how_long_a_plan_takes() -> None:
    planned = row(0.9, plans=200, planner_s=3.0)
    lines = table("W_A", "1.2", figures({"fcfs": {1: row(0.2, planner_s=0.0)}, "headrace": {1: planned}}))
    said = {line.split()[0]: line.split()[-1] for line in lines[2:4]}
    assert said == {"fcfs": "-", "headrace": "15"}


def test_a_table_names_every_policy_once() -> None:
    lines = "\n".join(table("W_A", "1.2", cell_of(fcfs=0.2, headrace=0.9, clairvoyant=0.95)))
    assert lines.count("\nfcfs ") == lines.count("\nheadrace ") == lines.count("\nclairvoyant ") == 1
    assert "98.0" in lines


# --- live cells ---


def live(scale: float = 20.0, workload: str = "W_A") -> Live:
    return Live(workload, 1.2, 1.2, scale, 600.0)


def test_one_cell_alone_runs_in_unscaled_time() -> None:
    cells = queue_live.cells(dict.fromkeys(WORKLOADS, 1.0), (0.8, 1.0, 1.2, 1.5))
    assert len(cells) == 12
    assert [(each.workload, each.load) for each in cells if each.scale == 1.0] == [queue_live.UNSCALED]


def test_a_workers_profile_is_its_instances_so_many_times_faster(tmp_path: Path) -> None:
    fleet = WORKLOADS["W_A"].scenario().fleet
    assert fleet is not None
    kind = kind_of(fleet.pools[0], "llama-2-70b")
    path = tmp_path / "a10.toml"
    path.write_text(queue_live.profile_text(kind, queue_live.live_names(WORKLOADS["W_A"]), 20.0))
    profile = engine_profile(str(path))
    assert not profile.models
    cost = profile.cost
    for tokens in (1, 10, 2_058):
        assert cost.tokens_s(tokens) == pytest.approx(kind.step.tokens_s(tokens) / 20)
    assert cost.prefill_pair_s == pytest.approx(kind.step.prefill_pair_s / 20)


def test_each_model_of_a_live_worker_has_the_pace_that_is_simulated(tmp_path: Path) -> None:
    cell = live(workload="W_B")
    config, names = queue_live.mesh_config(cell, "headrace", tmp_path), queue_live.live_names(cell.shape)
    fleet = cell.shape.scenario().fleet
    assert fleet is not None
    for pool, told in zip(fleet.pools, config.service_environment.values(), strict=True):
        profile = engine_profile(told["HEADRACE_PROFILE"])
        assert told["HEADRACE_MODEL"] == names[pool.model]
        for model, name in names.items():
            kind, own = kind_of(pool, "", model), profile.of(name)
            assert own.cost.tokens_s(100) == pytest.approx(kind.step.tokens_s(100) / 20)
            assert own.cost.decode_sequence_s == pytest.approx(kind.step.decode_sequence_s / 20)
            assert own.load_cold_s == pytest.approx(kind.load_cold_s / 20)
            assert own.load_warm_s == pytest.approx(kind.load_warm_s / 20)
            assert own.kv_bytes_per_token == queue_live.KV_BYTES
        assert len({profile.of(name).load_warm_s for name in names.values()}) == len(names) == 3


def test_an_idle_encoder_is_no_idle_llm_worker() -> None:
    """Ten seconds: one computes for nine of them, one for seven, and nobody sends a picture."""
    both = ["prefill", "decode"]
    latest = [
        Telemetry(stages=both, sent_s=110.0, prefill_busy_s=2.0, decode_busy_s=7.0),
        Telemetry(stages=both, sent_s=110.0, decode_busy_s=7.0),
        Telemetry(stages=["encode"], sent_s=110.0),
    ]
    assert queue_live.utilisation(latest, 100.0) == pytest.approx(0.8)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_mesh_and_client_agree_on_classes_models_and_lengths(workload: str, tmp_path: Path) -> None:
    cell = live(workload=workload)
    config = queue_live.mesh_config(cell, "headrace", tmp_path)
    told = classes_of(tomllib.loads(Path(config.environment["HEADRACE_CLASSES_FILE"]).read_text())).named
    asked = queue_live.scenario(cell, tmp_path)
    for slo in asked.classes:
        assert slo.ttft_s == pytest.approx(told[slo.name].ttft_s)
        assert slo.timeout_s == pytest.approx(told[slo.name].timeout_s)
    arrivals = list(asked.arrivals())
    assert len(arrivals) == len(WORKLOADS[workload].arrivals(1.2, queue_live.SEED, 600.0))
    assert max(each.at_s for each in arrivals) < 30.0
    assert all(each.input_tokens <= queue_live.PROMPT_TOKENS_MAX for each in arrivals)
    served = {config.model_name, *filter(None, config.environment.get("HEADRACE_MODELS", "").split(","))}
    assert {each.model for each in arrivals} <= served
    assert {each["HEADRACE_MODEL"] for each in config.service_environment.values()} <= served
    assert all(family(name).spec.name == name for name in served), "a live mesh knows them"
    assert len(config.service_environment) == config.prefill == config.decode == 2
