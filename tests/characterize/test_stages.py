"""Seconds and shares by stage against hand computations on a model made for it, and against the simulator."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.characterize import batching, breakdown, contracts, interference, paper, parallelism, parts
from headrace.characterize.cost import Input, Shown, decode_most, decode_s, iterations, prefill_s, stages
from headrace.core.cost import StepWork
from headrace.profiles import ProfileError
from headrace.sim.run import simulate
from headrace.workload import scenario
from headrace.workload.arrival import Arrival, Part
from tests.characterize.synthetic import toy

SHOWN = Shown(200, 200, 100)  # four tiles, 200 tokens


def test_stages_of_a_decoder_only_model_by_hand(tmp_path: Path) -> None:
    of = stages(toy(tmp_path), SHOWN)
    assert of.preprocess_s == pytest.approx(0.01 + 0.1 * 0.04)
    assert of.encode_s == pytest.approx(0.4)
    assert of.transfer_s == pytest.approx(0.001 + 200 * 1000 / 1e6)
    assert of.prefill_s == pytest.approx(0.3 + 300 * 301 / 2 * 1e-6), "text and image in one sequence"
    assert sum(of.shares) == pytest.approx(1.0)
    assert of.encode_share_together == pytest.approx(0.4 / (0.014 + 0.4 + of.prefill_s))


def test_stages_of_a_cross_attention_model_by_hand(tmp_path: Path) -> None:
    of = stages(toy(tmp_path, "cross"), SHOWN)
    # 101 positions: the image takes one. Cross KV of 200 rows, to which each position attends.
    by_hand = 0.101 + 101 * 102 / 2 * 1e-6 + 200 * 1e-4 + 101 * 200 * 1e-6
    assert of.prefill_s == pytest.approx(by_hand)
    assert of.encode_s == pytest.approx(0.4)


def test_long_prompts_are_cut_into_chunks_and_rows_are_made_once(tmp_path: Path) -> None:
    llm = toy(tmp_path, "cross").llm
    works = iterations(llm, [Input(900, 100, 0, crosses=True)])
    assert [work.prefill_tokens for work in works] == [400, 400, 100]
    assert [work.cross_tokens for work in works] == [100, 0, 0]
    assert sum(work.prefill_pairs for work in works) == 900 * 901 // 2
    assert sum(work.cross_pairs for work in works) == 900 * 100


@pytest.mark.parametrize(
    ("each", "requests", "batches", "why"),
    [
        (100, 4, [400], "four share an iteration"),
        (150, 3, [300, 150], "a third does not fit whole, and waits"),
        (300, 2, [300, 300], "more than half of a chunk: never together"),
    ],
)
def test_prompts_share_iterations_as_the_engines_batch_has_it(
    tmp_path: Path, each: int, requests: int, batches: list[int], why: str
) -> None:
    works = iterations(toy(tmp_path).llm, [Input(each)] * requests)
    assert [work.prefill_tokens for work in works] == batches, why


def test_batching_and_what_gains(tmp_path: Path) -> None:
    model = toy(tmp_path)
    found = batching.measured(model, Shown(100, 100, 50))  # one tile; 100 positions: a batch of one pays the floor
    assert found["encode"][8] == pytest.approx(8 * found["encode"][1])
    assert batching.verdict(batching.gain(found["encode"])) == "no gain"
    # Eight of 100 positions: two iterations of 400 tokens.
    assert found["prefill"][8] == pytest.approx(2 * (0.4 + 4 * 100 * 101 / 2 * 1e-6))
    assert found["decode"][8] == pytest.approx(0.1 + 8 * 101 * 1e-5)
    assert batching.gain(found["decode"]) == pytest.approx(8 * (0.1 + 101e-5) / (0.1 + 8 * 101e-5))
    assert batching.verdict(batching.gain(found["decode"])) == "gains"
    assert max(found["decode"]) == 8, "nine KV caches of 101 tokens are all that a million bytes hold"
    assert decode_most(model.llm, Input(50, 50)) == 9
    assert batching.by_tiles(model)[4] == pytest.approx(0.4)


def test_parallelism_by_latency_and_by_what_a_gpu_yields(tmp_path: Path) -> None:
    found = parallelism.measured(toy(tmp_path), SHOWN)
    assert found["encode"] == {1: (0.4, 2.5), 2: (pytest.approx(0.32), pytest.approx(1 / 0.32 / 2))}
    assert parallelism.best(found["encode"]) == (2, 1), "two are quicker, one yields more"
    assert found["decode"][1][0] == pytest.approx(decode_s(toy(tmp_path).llm, 1, Input(100, 200)))


def test_prefill_in_the_sequence_and_beside_it(tmp_path: Path) -> None:
    model = toy(tmp_path, "cross")
    beside = contracts.prefill_at(model, 1000, 100)
    joined = contracts.prefill_at(model, 1000, 100, joined=True)
    assert beside == pytest.approx(0.101 + 101 * 102 / 2e6 + 900 * 1e-4 + 101 * 900 * 1e-6)
    assert joined == pytest.approx(0.4 + 0.4 + 0.2 + 1000 * 1001 / 2e6)
    decoder = toy(tmp_path)
    assert contracts.prefill_at(decoder, 1000, 100) == contracts.prefill_at(decoder, 1000, 900), "only the total counts"


def test_fig12_by_hand(tmp_path: Path) -> None:
    found = contracts.fig12(toy(tmp_path))
    assert [each.images for each in found] == list(range(11))
    tiles = round(10 * 1601 / 50)
    assert found[10].encode_s == pytest.approx(10 * (0.01 + 0.1 * 0.01) + tiles * 0.1)
    assert found[0].prefill_s == pytest.approx(found[10].prefill_s), "decoder-only: the total alone"
    assert contracts.growth(found) == pytest.approx(found[10].ttft_s / found[0].prefill_s)


@pytest.mark.parametrize("name", paper.MODELS)
def test_table_1_and_the_shares_of_fig_5(name: str) -> None:
    model, known = parts.read(name, "a100"), paper.published(name)
    assert model.card.media_tokens(*paper.IMAGE_PX) == known.tokens
    assert model.card.tiles(*paper.IMAGE_PX) == known.tiles
    said = breakdown.data(model, Shown())
    assert said["image_tokens"] == known.tokens
    assert said["calibrated_on_it"] == bool(known.encode_share)
    if known.encode_share:  # a profile gives back what it was made from
        assert said["encode_share_together"] == pytest.approx(known.encode_share, abs=0.005)


def test_a_calibrated_share_is_called_no_evidence() -> None:
    section = breakdown.section([parts.read("internvl-2.5-26b", "a100")], Shown())
    assert section.origin == "computed"
    assert "nothing: calibrated on it" in section.tables[1].rows[0]
    other = breakdown.section([parts.read("internvl-2.5-26b", "h100")], Shown(448, 448))
    assert "for Table 1's request" in other.tables[1].rows[0][-1]


def test_the_simulator_takes_as_long_but_for_its_messages() -> None:
    """One image request in an empty simulated mesh, encoder apart: the same stages, within its milliseconds."""
    model, shown = parts.read("llama-3.2-11b-vision", "a100"), Shown()
    raw: dict[str, Any] = {
        "about": "one request",
        "duration_s": 5,
        "model": model.name,
        "workload": {"kind": "generated", "generator": "text"},
        "fleet": {
            "pools": [
                {"name": "encode", "stages": ["encode"], "gpu": "a100", "tp": 4},
                {"name": "llm", "stages": ["prefill", "decode"], "gpu": "a100", "tp": 4},
            ]
        },
    }
    one = Arrival(1.0, 128, 4, (Part("image", 896, 896),), slo_class="interactive")
    result = simulate(scenario.parse(raw, Path("one.toml")), "fcfs", 1, arrivals=[one])
    assert result.requests.ttft_s[0] == pytest.approx(stages(model, shown).ttft_s, abs=0.012)


def test_layouts_have_the_same_gpus_and_the_same_text() -> None:
    model = parts.read("llama-3.2-11b-vision", "a100")
    mixes = interference.plan([model], Shown(), 1, quick=True)
    assert len(mixes) == len(interference.LAYOUTS) * len(interference.SHARES)
    for mix in mixes:
        fleet = mix.scenario().fleet
        assert fleet is not None
        assert fleet.gpus == 8, mix
    texts = [[a.at_s for a in mix.arrivals() if not a.parts] for mix in mixes]
    assert all(each == texts[0] for each in texts)
    even = next(mix for mix in mixes if mix.share == 0.5)
    came = [bool(arrival.parts) for arrival in even.arrivals()]
    assert np.mean(came) == pytest.approx(0.5, abs=0.1)


def test_images_delay_text_on_shared_instances_more_than_with_encoders_apart() -> None:
    model = parts.read("llama-3.2-11b-vision", "a100")
    mixes = interference.plan([model], Shown(), 1, quick=True)
    cells = {
        (mix.layout, mix.share): interference.run(replace(mix, duration_s=40.0))
        for mix in mixes
        if mix.share in (0.0, 0.5)
    }
    p50_s = {key: cell["text_ttft_p50_s"] for key, cell in cells.items()}
    assert p50_s["together", 0.5] / p50_s["together", 0.0] > 1.2 > p50_s["apart", 0.5] / p50_s["apart", 0.0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "no-such-model"}, "no model 'no-such-model'"),
        ({"gpu_name": "z80"}, "no GPU 'z80'"),
        ({"link": "string"}, "no link 'string'"),
    ],
)
def test_mistakes_are_named(change: dict[str, str], words: str) -> None:
    with pytest.raises(ProfileError, match=words):
        parts.read(**{"name": "llama-3.2-11b-vision", "gpu_name": "a100", **change})  # type: ignore[arg-type]


def test_prefill_counts_nothing_twice(tmp_path: Path) -> None:
    llm = toy(tmp_path).llm
    assert prefill_s(llm, [Input(300)]) == pytest.approx(llm.step.step_s(StepWork(300, 300 * 301 // 2)))
