"""What `headrace demo-governor` shows: its terminal picture fits, says what was measured, and the PNG is one."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from headrace.cli.demo_governor_picture import save
from headrace.cli.demo_governor_screen import BLOCKS, Held, line, picture, resample, table_rows
from headrace.rehearsal.figures import STEP_S, Series
from headrace.rehearsal.load import Asked
from headrace.rehearsal.stage import Moment
from headrace.rehearsal.story import Story, tell
from headrace.rehearsal.watch import Reading

NAMES = ("before", "during", "after")
MOMENTS = (Moment("before", 1_000.0, 0.0), Moment("during", 1_010.0, 2_500.0), Moment("after", 1_030.0, 3_600.0))
HELD = [Held("decode", 3, 214.0, 0.75), Held("encode", 2, 468.0, 0.86), Held("prefill", 2, 0.0, 1.0)]


def watts(at_s: float) -> float:
    return 2_400.0 if 1_010.5 <= at_s < 1_030.0 else 3_500.0


def story(until_s: float) -> Story:
    energy_j, rows, asked = 0.0, list[Reading](), list[Asked]()
    for at_s in np.arange(990.0, until_s, 0.5).tolist():
        rows.append(Reading(at_s, energy_j, 0.0, 40.0 + (at_s - 990.0) / 5, 0.0, 1.0, 1.0, 1))
        energy_j += 0.5 * watts(at_s)
        if at_s + 1.0 < until_s:
            asked.append(Asked(at_s, "batch-1", 0, at_s + 1.0, at_s + 1.0, "", [(at_s + 1.0, 40), (at_s + 1.1, 20)]))
    moments = [moment for moment in MOMENTS if moment.at_s < until_s]
    return tell(moments, NAMES, {"prefill-0/plant:0": rows}, asked, until_s)


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("until_s", [1_000.2, 1_003.0, 1_010.1, 1_020.0, 1_042.0])
def test_the_picture_fits_a_terminal_at_any_moment(width: int, until_s: float) -> None:
    console = Console(width=width, force_terminal=True, color_system=None, record=True, file=io.StringIO())
    console.print(picture(story(until_s), HELD, 42.0, 0.7, min(width, 140)))
    lines = console.export_text().rstrip("\n").split("\n")
    assert len(lines) <= 23
    assert max(map(len, lines)) <= width
    assert any("caps" in text and "214 W" in text for text in lines)


def test_bars_are_as_high_as_the_power() -> None:
    console = Console(width=80, color_system=None, record=True, file=io.StringIO())
    console.print(picture(story(1_042.0), HELD, 42.0, 0.7, 80))
    chart = console.export_text().split("\n")[2:10]
    full = [sum(text[at] in (BLOCKS[-1], "━") for text in chart) for at in (20, 50)]
    assert full == [7, 5]  # 3,500 W in lines of 500; 2,400 W is not five whole ones, but the limit's line is there


def test_the_table_has_a_column_for_each_phase_also_for_those_to_come() -> None:
    heads, rows = table_rows(story(1_020.0))
    assert heads[1:] == ("before", "budget cut", "restored")
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name["limit"] == ("none", "2500 W", "")
    assert by_name["first token, batch-1"] == ("1.00 / 1.00 s", "1.00 / 1.00 s", "")
    assert by_name["first token, interactive"] == ("-", "-", "")
    assert by_name["energy per token"][0] == f"{3_500 / 120:.1f} J"


def test_a_line_for_a_log() -> None:
    said = " ".join(line(story(1_042.0)).split())
    assert said.startswith("41.8 s restored 3500 W of 3600 W 50 C ")
    assert said.endswith(" tok/s TTFT p50 1.00 s, p95 1.00 s")


def test_columns_narrower_than_a_sample_repeat_it_and_those_to_come_are_empty() -> None:
    wide = resample(Series(np.arange(0.0, 2.0, STEP_S), np.arange(8.0)), 4.0, 64)
    assert np.isnan(wide[32:]).all()
    assert np.nan_to_num(wide[:29], nan=-1.0).tolist() == [float(at // 4) for at in range(29)]
    narrow = resample(Series(np.arange(0.0, 2.0, STEP_S), np.arange(8.0)), 4.0, 4)
    assert narrow[:2].tolist() == [1.5, 5.5]
    assert all(map(math.isnan, narrow[2:]))


def test_the_finding() -> None:
    found = story(1_042.0).finding()
    assert found == ("Budget cut from 3.50 to 2.50 kW: kept after 1.5 s; all of the tokens in the cut, all after it")


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    save(story(1_042.0), tmp_path / "it.png")
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")
