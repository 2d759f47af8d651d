"""Capacities of stages, what is chosen of them, where it stands, and the scenario that comes of it."""

import math
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headrace.characterize.cost import Input
from headrace.characterize.parts import Parts, read
from headrace.cli.main import main
from headrace.core.cost import Curve
from headrace.sizing.capacity import (
    Capacity,
    Stage,
    decode_capacity,
    encoder_capacity,
    most,
    p99_wait_s,
    prefill_capacity,
    shared_capacity,
    work_of,
)
from headrace.sizing.choose import Layout, Sized, best, initial, layouts, servers, sweep
from headrace.sizing.compare import Confirmed, cheapest, settle
from headrace.sizing.fleet import fleet_of, up_words, with_fleet
from headrace.sizing.traffic import Ask, Promise, Traffic, busiest, over_mean, traffic_of
from headrace.workload import scenario as scenarios

VISION, TEXT = "llama-3.2-11b-vision", "llama-3.1-8b"
MIXED = Traffic(
    [Ask(Input(500), 200), Ask(Input(100, 6404, 1, True), 80, ((4, 896 * 896),))],
    rate_rps=4.0,
    peaks={"images": 8.0, "positions": 4.0, "outputs": 6.0},
)


@pytest.fixture(scope="module")
def vision() -> Parts:
    return read(VISION, "a100")


# --- capacities ---


@pytest.mark.parametrize("busy", [0.1, 0.5, 0.9])
def test_of_exponential_services_the_wait_is_that_of_an_m_m_1_queue(busy: float) -> None:
    services = np.random.default_rng(1).exponential(1.0, 200_000)
    exact_s = math.log(100 * busy) / (1.0 - busy)  # P(wait > t) = busy exp(-(1 - busy) t)
    assert p99_wait_s(busy, services) == pytest.approx(exact_s, rel=0.05)


def test_more_than_is_served_waits_for_ever_and_little_does_not_wait() -> None:
    assert p99_wait_s(1.0, np.ones(1)) == math.inf
    assert p99_wait_s(0.009, np.ones(1)) == 0.0, "fewer than one in a hundred meet anybody"
    assert p99_wait_s(0.0, np.ones(1)) == 0.0


def test_the_most_load_is_where_the_promise_breaks() -> None:
    assert most(lambda rate: rate <= 3.0, 10.0) == pytest.approx(3.0)
    assert most(lambda rate: False, 10.0) == 0.0


def test_a_batch_is_worth_it_where_the_tower_gains_and_the_promise_has_time(vision: Parts) -> None:
    """Published towers are linear in tiles: alone is best. One that is not gains, as long as its batch is in time."""
    linear = vision.encoders[1]
    gaining = replace(linear, cost=replace(linear.cost, tiles_s=Curve((1.0, 64.0), (0.1, 0.2))))

    def chosen(limit_s: float, tower: object = gaining) -> int:
        found = best([encoder_capacity(tower, MIXED, batch, limit_s) for batch in (1, 2, 4, 8)])  # type: ignore[arg-type]
        return found.batch if found is not None else 0

    assert chosen(5.0, linear) == 1
    assert chosen(5.0) > 1
    assert chosen(0.2) == 1
    assert chosen(0.01) == 0, "not even alone"


def test_less_time_less_capacity(vision: Parts) -> None:
    llm = vision.llms[4]
    work = work_of(llm, MIXED)
    rates = [prefill_capacity(llm, work, np.full(2, limit)).requests_per_s for limit in (0.01, 0.1, 0.5, 5.0)]
    assert rates == sorted(rates)
    assert rates[0] == 0.0
    decodes = [decode_capacity(llm, MIXED, 256, tbt_s).requests_per_s for tbt_s in (0.001, 0.006, 0.05, 0.0)]
    assert decodes == sorted(decodes)
    assert decodes[0] == 0.0


def test_together_prompts_hold_up_tokens(vision: Parts) -> None:
    """Both at once cannot carry what each carries alone; and pictures take their time of the same instance."""
    llm, limits = vision.llms[4], np.full(2, 2.0)
    plain, whole = work_of(llm, MIXED), work_of(llm, MIXED, vision.encoders[4])
    shared = shared_capacity("prefill+decode", llm, MIXED, plain, 256, limits, 0.03).requests_per_s
    alone = prefill_capacity(llm, plain, limits).requests_per_s
    decode = decode_capacity(llm, MIXED, 256, 0.03).requests_per_s
    assert 0 < shared < min(alone, decode)
    every = shared_capacity("encode+prefill+decode", llm, MIXED, whole, 256, limits, 0.03).requests_per_s
    assert 0 < every < shared


# --- choices ---


def capacity(stage: Stage, tp: int, batch: int, rate: float) -> Capacity:
    return Capacity(stage, tp, batch, rate, 0.1)


@pytest.mark.parametrize(
    ("of", "wanted", "why"),
    [
        ([("prefill", 1, 0, 2.0), ("prefill", 4, 0, 6.0)], (1, 0), "per GPU, not per instance"),
        ([("prefill", 1, 0, 0.0), ("prefill", 4, 0, 6.0)], (4, 0), "what keeps no promise is none"),
        ([("encode", 1, 4, 2.0), ("encode", 1, 1, 2.0)], (1, 1), "an encoder's smaller batch"),
        ([("decode", 1, 64, 2.0), ("decode", 1, 256, 2.0)], (1, 256), "an LLM's larger one"),
        ([("decode", 2, 64, 4.0), ("decode", 1, 64, 2.0)], (1, 64), "fewer GPUs"),
    ],
)
def test_the_best_of_them(of: list[tuple[Stage, int, int, float]], wanted: tuple[int, int], why: str) -> None:
    found = best([capacity(*each) for each in of])
    assert found is not None
    assert (found.tp, found.batch) == wanted, why


def test_nothing_keeps_an_impossible_promise() -> None:
    assert best([capacity("decode", 1, 8, 0.0)]) is None


def test_each_pool_is_sized_for_the_busiest_time_of_its_own_stage(vision: Parts) -> None:
    found = sweep(vision, MIXED, Promise(2.0, 0.05))
    made = {each.name: each for each in layouts(found, MIXED, gpus_max=64)}
    assert set(made) == {"together", "encoders apart", "all apart"}
    rates = {"encode": 8.0, "prefill": 4.0, "decode": 6.0}
    for pool in made["all apart"].pools:
        assert (pool.count - 1) * pool.chosen.requests_per_s < rates[pool.chosen.stage]
        assert pool.count * pool.chosen.requests_per_s >= rates[pool.chosen.stage]
    few = layouts(found, MIXED, gpus_max=3)
    assert all(layout.gpus <= 3 or all(pool.count == 1 for pool in layout.pools) for layout in few)


def test_modserves_initial_sizing() -> None:
    """N_i = images a second x seconds of one; N_t = N_i / images of a request."""
    traffic = Traffic([Ask(Input(9), 9, ((4, 1),) * 2)], rate_rps=10.0)
    assert initial(traffic, encode_s=0.3) == (6, 3)


def test_encoders_take_the_gpus_that_a_text_instance_leaves() -> None:
    """ModServe's example: one TP-4 text and two TP-2 image instances fill a server of eight."""
    layout = Layout(
        "encoders apart",
        (Sized(capacity("encode", 2, 1, 1.0), 2), Sized(capacity("prefill+decode", 4, 64, 1.0), 1)),
    )
    assert servers(layout) == [[("prefill+decode", 4), ("encode", 2), ("encode", 2)]]
    larger = replace(layout, pools=(*layout.pools, Sized(capacity("decode", 8, 64, 1.0), 1)))
    assert [sum(gpus for _, gpus in server) for server in servers(larger)] == [8, 8]


# --- confirmed by simulation ---


def told(layout: Layout, kept: float) -> Confirmed:
    """Prefill is short as long as anything is; the pool with more instances is the idler."""
    busy: dict[str, float] = {pool.chosen.stage: 1.0 / pool.count for pool in layout.pools}
    return Confirmed(layout, kept, 10.0 * kept, 1.0, 0.01, "prefill", busy)


def pair(prefills: int, decodes: int) -> Layout:
    return Layout("", (Sized(capacity("prefill", 1, 0, 2.0), prefills), Sized(capacity("decode", 1, 8, 1.0), decodes)))


@pytest.mark.parametrize(
    ("begins", "needs", "gpus_max", "ends"),
    [
        ((1, 1), (3, 1), 8, (3, 1)),  # the pool that is short grows until the promises are kept
        ((3, 4), (3, 1), 8, (3, 1)),  # the idler one shrinks while they are
        ((5, 2), (3, 1), 8, (3, 1)),  # and the other one after it
        ((1, 1), (9, 1), 3, (2, 1)),  # no further than there are GPUs
    ],
)
def test_a_layout_settles_where_its_promises_are_just_kept(
    begins: tuple[int, int], needs: tuple[int, int], gpus_max: int, ends: tuple[int, int]
) -> None:
    def measure(layout: Layout) -> Confirmed:
        counts = [pool.count for pool in layout.pools]
        return told(layout, 1.0 if all(a >= b for a, b in zip(counts, needs, strict=True)) else 0.5)

    settled = settle(pair(*begins), measure, gpus_max)
    assert tuple(pool.count for pool in settled.layout.pools) == ends


def test_cheapest_is_fewest_gpus_that_keep_the_promises() -> None:
    few, many, cheap = told(pair(1, 1), 0.995), told(pair(2, 2), 1.0), told(pair(1, 1), 0.9)
    assert cheapest([many, few, cheap]) is few
    assert cheapest([told(pair(2, 2), 0.9), cheap]) is cheap, "none keeps them: least of a GPU for each good answer"


# --- what comes of it ---

SCENARIO = """\
about = "a test"
model = "llama-3.1-8b"
duration_s = 20 # seconds

[workload]
kind = "generated"
generator = "text"
rate_rps = 3

[classes.interactive]
ttft_s = 2
tbt_s = 0.05

[fleet] # another one
link = "pcie"
[[fleet.pools]]
name = "other"
stages = ["prefill", "decode"]
gpu = "h100"

[[incidents]]
at_s = 5
kind = "kill"
worker = "other"
[mesh]
command_s = 0.001
"""


def test_a_scenario_gets_another_fleet_and_keeps_everything_else(vision: Parts) -> None:
    text = with_fleet(SCENARIO, fleet_of(pair(2, 3), vision, "nvlink"), "for a test")
    raw = tomllib.loads(text)
    assert raw["mesh"] == {"command_s": 0.001}
    assert "incidents" not in raw, "its workers are gone"
    assert "# seconds" in text
    fleet = scenarios.parse(raw, Path("test.toml")).fleet
    assert fleet is not None
    assert [(pool.name, pool.stages, pool.count, pool.gpu) for pool in fleet.pools] == [
        ("prefill", ("prefill",), 2, "a100"),
        ("decode", ("decode",), 3, "a100"),
    ]
    assert fleet.link == "nvlink"


def test_words_that_start_it_on_one_machine() -> None:
    assert up_words(pair(2, 3), "m") == "headrace up --model m --prefill 2 --decode 3"
    shared = Layout("", (Sized(capacity("encode", 1, 1, 1.0), 2), Sized(capacity("prefill+decode", 1, 8, 1.0), 3)))
    assert up_words(shared, "m").endswith("--encoders 2 --prefill 3 --decode 3 --colocate prefill,decode")
    assert up_words(pair(8, 8), "m") == "", "more GPUs than a machine has"


def test_the_busiest_times_of_the_stages() -> None:
    assert over_mean([0.0, 100.0, 400.0], [1.0, 1.0, 4.0], 600.0) == pytest.approx(8 / 6)
    shifting = scenarios.read("shifting")
    card = read(TEXT, "a100").card
    traffic = traffic_of(shifting, card)
    assert traffic.peaks["positions"] > 1.5 * traffic.rate_rps
    assert traffic.peaks["outputs"] > 1.5 * traffic.rate_rps
    prompts, answers = busiest(shifting, card, 120.0)
    assert prompts[0].input_tokens > 1000 > answers[0].input_tokens
    assert 3 * len(prompts) < 2 * len(answers)


def test_the_command_writes_a_scenario_that_keeps_its_promises(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, out = tmp_path / "asked.toml", tmp_path / "out.toml"
    asked.write_text(SCENARIO)
    assert main(["pools", str(asked), "--gpus", "8", "--seconds", "10", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "cheapest" in shown
    assert "headrace up --model llama-3.1-8b" in shown
    assert main(["simulate", str(out), "--no-report", "--json"]) == 0
    assert '"attainment": 1.0' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--ttft", "0.001"], "no stage keeps these promises"),
        (["--model", "nobody"], "no model 'nobody'"),
    ],
)
def test_what_cannot_be_is_said(words: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = tmp_path / "asked.toml"
    asked.write_text(SCENARIO)
    assert main(["pools", str(asked), "--no-simulation", *words]) == 2
    assert why in capsys.readouterr().err
