"""The live echo's page: what the mesh did beside what the simulator says, and when that says little."""

from pathlib import Path

from headrace.modalities.image import ROWS
from headrace.profiles import engine_profile
from loadtest.benches.validation_subjects import Subject
from loadtest.reproduce import echo
from loadtest.reproduce.echo import Heard

FIGURES = {"attainment": 0.5, "ttft_p50_s": 0.1, "ttft_p99_s": 2.0, "jct_mean_s": 4.0}
SIMULATED = {"attainment": 0.6, "ttft_p50_s": 0.2, "ttft_p99_s": 1.0, "jct_mean_s": 5.0}


def heard(others_share: float = 0.02, **text: float) -> Heard:
    return Heard("FCFS", 342, FIGURES | text, SIMULATED | text, 0.7, others_share)


def test_each_figure_stands_beside_the_simulated_one() -> None:
    (table,) = echo.section("x", [heard()]).tables
    assert "of text alone" not in table.columns, "there is nothing else"
    row = dict(zip(range(len(table.columns)), table.rows[0], strict=True))
    assert [row[at] for at in (2, 3)] == ["50.0 %", "60.0 %"]
    assert table.rows[0][4:10] == ("100", "200", "2,000", "1,000", "4,000", "5,000")


def test_with_pictures_text_has_a_figure_of_its_own() -> None:
    (table,) = echo.section("x", [heard(text_ttft_p99_s=0.03)]).tables
    at = table.columns.index("of text alone")
    assert table.rows[0][at : at + 2] == ("30.0", "30.0")
    assert len(table.rows[0]) == len(table.columns)


def test_it_says_what_is_off_and_that_the_machine_was_busy() -> None:
    quiet, busy = echo.section("x", [heard()]), echo.section("x", [heard(), heard(others_share=0.4)])
    assert quiet.findings == ("FCFS: simulated, +10.0 points of promises kept, and +25.0 % of the mean JCT.",)
    assert len(quiet.notes) == 1
    assert "40 %" in busy.notes[1]


def test_the_encoder_of_a_scene_takes_as_long_as_it_says(tmp_path: Path) -> None:
    subject = Subject("echo", "profile", "profile-tiny", True, 6.0, 800, 100, 0.3, echo._PLAN)
    plain = subject.mesh_config(tmp_path).profile
    told = engine_profile(str(echo._with_encoder(Path(plain), 0.27)))
    assert told.encode_token_s * ROWS == 0.27
    assert told.cost == engine_profile(plain).cost
