"""What the reproductions of QLM, SSJF and of everything together make of rows: gains in pairs, keys, reports."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from headrace.characterize.document import Document
from headrace.report.compare import Estimate
from headrace.report.provenance import Provenance
from loadtest.reproduce import markdown, qlm_sections, together, together_sections
from loadtest.reproduce.bars import bars
from loadtest.reproduce.qlm_figures import cells_of, headline
from loadtest.reproduce.qlm_fleet import EIGHTH, FULL, Place, Trial, fleet, workload
from loadtest.reproduce.together_figures import OURS, At, by_name, chosen, share_of_gain
from loadtest.reproduce.together_scene import Load
from loadtest.reproduce.together_systems import OURS as EVERYTHING
from loadtest.reproduce.together_systems import SINGLE, TRUE_LENGTHS, WITHOUT, Hindsight, System
from loadtest.reproduce.together_systems import Trial as Run

TOLD = Provenance("a machine", "2026-01-01", "abc", (1, 2), "headrace reproduce tried")
PLACE = Place("W_A", 1.25, 2.5, 600.0, EIGHTH)


def row(attainment: float, throughput_rps: float = 1.0, **more: Any) -> dict[str, Any]:
    return {
        "attainment": attainment,
        "by_class": dict.fromkeys(("interactive", "batch-1", "batch-2"), attainment),
        "throughput_rps": throughput_rps,
        "utilisation": 0.9,
        "requests": 10,
        "swaps": 0.0,
        "evictions": 0.0,
        "plans": 0.0,
        "planner_s": 0.0,
        **more,
    }


# --- QLM ---


def qlm_rows() -> list[tuple[Any, dict[str, Any]]]:
    """Headrace keeps 40 points more than FCFS on one seed, 60 on the other; EDF ran on one seed alone."""
    kept = {("headrace", 1): 0.9, ("headrace", 2): 0.8, ("fcfs", 1): 0.5, ("fcfs", 2): 0.2, ("edf", 2): 0.85}
    rows = [(Trial(PLACE, policy, seed), row(share, 2 * share)) for (policy, seed), share in kept.items()]
    return [*rows, *((Trial(PLACE, "shepherd", seed), row(0.7)) for seed in (1, 2))]


def test_gains_are_in_pairs_of_the_same_seed() -> None:
    found = headline(cells_of(qlm_rows()), {"W_A": PLACE})
    assert found["attainment_gain_points"]["W_A"]["fcfs"] == pytest.approx(50.0)
    assert found["attainment_gain_points"]["W_A"]["edf"] == pytest.approx(-5.0), "of the seed that both ran"
    assert found["throughput_gain"]["W_A"]["fcfs"] == pytest.approx((0.9 / 0.5 + 0.8 / 0.2) / 2 - 1)
    assert found["utilisation"]["W_A"]["headrace"] == pytest.approx(0.9)


def test_qlm_reports_where_it_loses(tmp_path: Path) -> None:
    cells, at = cells_of(qlm_rows()), {"W_A": PLACE}
    sections = qlm_sections.all_of(cells, at, [PLACE], [PLACE], {"W_A": 0.9}, 1)
    text = markdown.write(Document("QLM", "about", sections), TOLD, tmp_path, "qlm").read_text()
    assert "+50.0" in text
    assert "W_A at 1.25: -5.0 points against EDF." in text
    assert all((tmp_path / "qlm" / name).is_file() for name in _charts(text, "qlm"))


def test_the_fleet_has_no_more_gpus_than_there_are_and_an_instance_of_each_kind() -> None:
    for name in ("W_A", "W_B", "W_C"):
        whole, eighth = fleet(name, FULL), fleet(name, EIGHTH)
        assert whole["a10"] <= 30
        assert whole["a100"] <= 50
        assert whole["a10"] >= 24
        assert whole["a100"] >= 48
        assert all(0 < eighth[pool] < whole[pool] for pool in whole)
        assert workload(name, FULL).parts == workload(name, EIGHTH).parts


# --- everything together ---

LOAD = Load(14.0, 60.0)


def mixed(attainment: float, images: float = 0.5) -> dict[str, Any]:
    rest = {"goodput_rps": 10 * attainment, "gpu_hours": 2.0, "joules": 3e6, "ttft_p50_s": 1.0, "ttft_p99_s": 9.0}
    return row(attainment, with_images=images, text_alone=attainment, **rest)


def together_at() -> At:
    """Seed 1: ours 0.8, ModServe-like 0.6, hindsight 0.9. Seed 2: ours 0.7, ModServe-like 0.6, hindsight 0.65."""
    kept = {"modserve": (0.6, 0.6), "qlm": (0.5, 0.5), "ssjf": (0.4, 0.4), "fcfs": (0.1, 0.1), OURS: (0.8, 0.7)}
    kept |= {"true lengths": (0.8, 0.7), "hindsight": (0.9, 0.65), "without the planner": (0.6, 0.6)}
    return At(14.0, {name: dict(enumerate(map(mixed, shares), 1)) for name, shares in kept.items()})


def test_zero_is_the_best_single_system_and_one_the_best_that_is_known_of_each_seed() -> None:
    at = together_at()
    assert at.best_single == "modserve"
    assert at.points(OURS, "modserve").mean == pytest.approx(15.0)
    most = (0.9 + 0.7) / 2  # on seed 2 no replay is as good as ours
    assert share_of_gain(at, "hindsight") == pytest.approx((0.75 - 0.6) / (most - 0.6))
    assert share_of_gain(at, "true lengths") == pytest.approx(1.0)


def test_the_json_object_has_its_keys() -> None:
    found = together.data_of([together_at()])
    assert found["systems"]["qlm"].keys() >= {"goodput_rps", "attainment", "gpu_hours", "joules"}
    assert found["gain_over_best_single_points"] == pytest.approx(15.0)
    assert found["by_rate"]["14"]["gain_points"]["fcfs"] == pytest.approx(65.0)
    assert {"share_of_clairvoyant_gain", "paper", "zero_is", "one_is"} <= found.keys()


def test_a_single_system_has_its_best_shape_at_a_rate() -> None:
    good = SINGLE["modserve"][2]
    found = [(Run(shape, LOAD, 2_001), mixed(0.9 if shape == good else 0.5)) for shape in SINGLE["modserve"]]
    shapes = chosen(found, LOAD)
    assert shapes["modserve"] == good
    assert shapes["qlm"] == SINGLE["qlm"][0], "nothing is known of it"


def test_rows_find_their_systems() -> None:
    names = {OURS: EVERYTHING, "true lengths": TRUE_LENGTHS}
    found = [(Run(EVERYTHING, LOAD, 1), mixed(0.8)), (Run(EVERYTHING, Load(8.0, 60.0), 1), mixed(0.1))]
    rows = by_name([*found, (Hindsight(LOAD, 1), mixed(0.9))], LOAD, names)
    assert rows[OURS][1]["attainment"] == 0.8
    assert rows["hindsight"][1]["attainment"] == 0.9
    assert "true lengths" not in rows


def test_leaving_one_out_leaves_out_one() -> None:
    for name, system in WITHOUT.items():
        names = [each.name for each in fields(System)]
        differs = [key for key in names if getattr(system, key) != getattr(EVERYTHING, key)]
        assert differs == (["apart", "room"] if name == "stages apart" else differs[:1]), name
        assert differs, name


def test_the_report_says_what_is_needed_and_where_it_loses(tmp_path: Path) -> None:
    at = together_at()
    shapes = {name: of[0] for name, of in SINGLE.items()}
    sections = together_sections.all_of([at], {14.0: shapes}, 60.0)
    text = markdown.write(Document("Ours", "about", sections), TOLD, tmp_path, "together").read_text()
    assert "+15.0" in text
    assert "It needs the planner" in text or "No sure difference here: the planner" in text
    assert all((tmp_path / "together" / name).is_file() for name in _charts(text, "together"))


def _charts(text: str, name: str) -> list[str]:
    found = [part.split(")")[0] for part in text.split(f"]({name}/")[1:]]
    assert found
    return found


# --- bars ---


def test_bars_go_to_either_side_of_zero() -> None:
    figure = bars("Gains", {"here": [("more", Estimate(20.0, 5.0)), ("less", Estimate(-10.0))]}, "points")
    svg = str(figure.svg)
    more, less = ((float(box.split('"')[0]), box) for box in svg.split('<rect x="')[1:])
    assert less[0] < more[0]
    assert "20.0 ± 5.0 points" in svg
    assert "here, less: -10.0 points" in svg
