"""ModServe's reproduction on small fleets: the ordering, the search for goodput, what the report and its data hold."""

import json
import math
from pathlib import Path

import pytest

from headrace.report.provenance import Provenance, plain
from loadtest.reproduce import markdown, modserve, modserve_goodput, modserve_ratio, modserve_separated
from loadtest.reproduce.modserve_capacity import alone_s, split_rps, whole_rps
from loadtest.reproduce.modserve_plan import Base, Plan, quick
from loadtest.reproduce.modserve_runs import Isolated, Run, carry_out, carry_out_isolated
from loadtest.reproduce.modserve_scaling import Day, arrivals, saving
from loadtest.reproduce.modserve_systems import MODELS, PAPER_SHAPE, Shape
from loadtest.reproduce.modserve_traffic import Targets, Traffic, requests
from loadtest.rows import Rows

LLAMA, INTERNVL = MODELS
SMALL = Shape(whole=8, text=5, image=12)  # a quarter of the paper's
TARGETS = Targets(0.3, 3.4)
TOLD = Provenance("a machine", "2026-01-01", "abc", (1,), "headrace reproduce modserve")


def p99_s(system: str, rate_rps: float = 10.0) -> float:
    run = Run(LLAMA, system, Traffic(rate_rps, 500), 1, TARGETS, SMALL)
    return float(carry_out(run)["ttft_p99_s"])


def test_image_instances_beat_the_monolith_and_routing_beats_chance() -> None:
    monolith, balanced, at_random, modserve_s = map(p99_s, ("monolith", "monolith_balanced", "random", "modserve"))
    assert monolith > balanced > modserve_s
    assert at_random > 1.2 * modserve_s


def test_all_systems_and_rates_of_a_seed_get_the_same_requests() -> None:
    slow, fast = (requests(LLAMA, Traffic(rate, 300), 7, TARGETS) for rate in (2.0, 20.0))
    assert [(one.input_tokens, one.parts) for one in slow] == [(one.input_tokens, one.parts) for one in fast]
    assert slow[-1].at_s == pytest.approx(150.0)
    assert [one.at_s for one in slow] == pytest.approx([10 * one.at_s for one in fast])
    assert {one.ttft_s for one in fast if one.parts} == {3.4}
    assert max(len(one.parts) for one in fast) <= 16


def test_what_a_request_takes_alone_is_reckoned_as_it_is_simulated() -> None:
    for model in MODELS:
        assert carry_out_isolated(Isolated(model, 1, requests=60))["reckoned_off"] < 0.1
    for each in requests(LLAMA, Traffic(1.0, 50), 1, TARGETS):
        assert (alone_s(LLAMA, 1.0, each) > 0.29) == bool(each.parts), each


def test_raw_capacity_is_what_arithmetic_allows() -> None:
    """1.46 by ModServe's own shares of Llama-3.2-11B; InternVL's text instances are fewer than the monolith's."""
    ratios = {model: split_rps(model, PAPER_SHAPE) / whole_rps(model, PAPER_SHAPE) for model in MODELS}
    assert ratios[LLAMA] == pytest.approx(1.46, rel=0.1)
    assert 0.8 < ratios[INTERNVL] < 1.0


@pytest.mark.parametrize(
    ("points", "most", "rate", "why"),
    [
        ([(1, 0.5), (2, 0.5)], 10.0, 2.0, "nothing fails: the highest rate that was tried"),
        ([(1, 1.5), (2, 0.5)], 10.0, 0.0, "the least fails"),
        ([(1, 0.5), (2, 2.0)], 10.0, 1.5, "the excess grows fourfold: the middle of the way"),
        ([(1, 0.5), (2, 2.0), (3, 0.1)], 10.0, 1.5, "the first that fails counts"),
        ([(1, 0.5), (2, 0.9)], 1.2, 1.2, "never more than the fleet can do"),
        ([(1, 0.5), (2, math.nan)], 10.0, 1.0, "nobody was answered"),
        ([(1, 1.0), (2, 3.0)], 10.0, 1.0, "exactly at the target is within it"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_highest_rate_within_the_target(
    points: list[tuple[float, float]], most: float, rate: float, why: str
) -> None:
    assert modserve_goodput.goodput(points, most) == pytest.approx(rate), why


def test_a_ratio_of_means_has_the_interval_of_its_seeds() -> None:
    assert modserve_goodput.ratio([2.0, 4.0], [1.0, 2.0]).mean == 2.0
    assert modserve_goodput.ratio([2.0, 4.0], [1.0, 2.0]).half == pytest.approx(0.0)
    assert modserve_goodput.ratio([2.0], [0.0]).mean == math.inf
    assert math.isnan(modserve_goodput.ratio([0.0], [0.0]).mean)
    assert math.isnan(modserve_goodput.ratio([1.0, 2.0], [1.0]).mean), "a run has failed"


def test_criteria_are_multiples_of_the_isolated_request() -> None:
    row = {"text_p99_s": 0.2, "image_p99_s": 3.0, "ttft_p99_s": 2.0, "tbt_p99_s": 0.06, "slowdown_p99": 7.0}
    base = Base(0.1, 1.0, 0.01)
    excess = {name: of(row, base, 2.0) for name, (_, of) in modserve_goodput.CRITERIA.items()}
    assert excess == pytest.approx({"kinds": 3.0, "kinds_ttft": 1.5, "mixed": 3.0, "mixed_ttft": 1.0, "own_ttft": 3.5})


def test_the_ratio_study_always_has_64_gpus() -> None:
    shapes = [modserve_ratio.shape(texts) for texts in (4, 6, 8, 10, 12)]
    assert [(each.text, each.image) for each in shapes] == [(4, 48), (6, 40), (8, 32), (10, 24), (12, 16)]
    assert all(each.gpus == (64, 64) for each in shapes)


def test_a_day_is_pressed_into_less() -> None:
    asked = arrivals(Day(LLAMA, "modserve", "published", 1_000, 600.0, 1, TARGETS))
    assert len(asked) == pytest.approx(1_000, rel=0.1)
    assert 540 < asked[-1].at_s <= 600
    assert saving([{"gpu_hours": 10.0}], [{"gpu_hours": 6.0}]).mean == pytest.approx(0.4)


def test_prefill_apart_runs_on_every_side() -> None:
    for side in modserve_separated.SIDES:
        row = modserve_separated.carry_out(modserve_separated.Separated(side, Traffic(4.0, 60), 1, TARGETS))
        assert row["finished"] == 1.0, side


TINY = Plan(
    (1,),
    models=(LLAMA,),
    requests=60,
    loads=(48.0,),
    whole_rates=(8.0, 48.0),
    split_rates=(8.0, 48.0),
    encode_times=(2.0,),
    ratio_requests=30,
    ratio_shares=(0.5,),
    ratio_texts=(8,),
    separated_loads=(0.5,),
    day_requests=60,
    day_s=120.0,
    capacity_requests=120,
    capacity_seeds=1,
)


def in_turn(jobs, work, *, processes, seen):  # type: ignore[no-untyped-def]
    """Sweep in this process."""
    from headrace.sim.sweep import Outcome

    for at, job in enumerate(jobs):
        seen(Outcome(at, job, work(job)))


def test_the_report_is_written_and_its_data_have_the_keys_of_the_benches(tmp_path: Path) -> None:
    found = modserve.found_of(TINY, Rows(tmp_path / "rows", modserve.work, in_turn))
    assert not found.failed
    data = json.loads(json.dumps(plain(found.document.data)))
    assert {"goodput_ratio", "gpu_saving", "p99_ttft_s", "paper", "raw_capacity_rps", "ratio_study"} <= data.keys()
    assert {"monolith", "decoupled", "scheduled", "modserve", "random", "shortest"} <= data["p99_ttft_s"].keys()
    assert data["paper"]["goodput_ratio"] == {LLAMA: 3.3, INTERNVL: 5.5}
    text = markdown.write(found.document, TOLD, tmp_path, "modserve", found.failed).read_text()
    for title in ("One switch at a time", "Goodput and raw capacity", "A day with bursts", "the paper does not say"):
        assert title in text
    again = modserve.found_of(TINY, Rows(tmp_path / "rows", _never, in_turn))
    assert json.dumps(plain(again.document.data)) == json.dumps(plain(found.document.data))


def _never(job):  # type: ignore[no-untyped-def]
    raise AssertionError(f"{job} is known")


def test_quick_has_every_part_of_the_full_run() -> None:
    assert quick((1, 2, 3)).models == MODELS
