"""The report on cells, made of small real runs: what it says and draws."""

from pathlib import Path

from headrace.report.provenance import provenance
from headrace.sim.cells import Layout
from loadtest.reproduce import markdown
from loadtest.reproduce.cells import Trial, document, trials, work

LOST = Layout(2, lost_cell=0, lost_at_s=0.5)


def test_a_grid_begins_with_what_matters_most() -> None:
    layouts = [trial.layout for trial in trials(1, 30.0, 1, (8, 1, 16, 32))]
    assert layouts[:3] == [Layout(8), Layout(1), Layout(8, lost_cell=0, lost_at_s=15.0)]
    assert len(set(layouts)) == len(layouts) == 11


def test_the_report_tells_cuts_spreads_and_losses(tmp_path: Path) -> None:
    layouts = (Layout(1), Layout(2), Layout(2, "random"), LOST)
    jobs = [Trial(layout, 1, 1.0, 8) for layout in layouts]
    found = document([(job, work(job)) for job in jobs], [])
    assert [section.title for section in found.document.sections] == [
        "How many cells",
        "Who spreads the requests",
        "When a cell is gone",
        "What was set here",
    ]
    path = markdown.write(found.document, provenance(["headrace"], (1,)), tmp_path, "cells")
    text = path.read_text()
    assert "| 1 |" in text
    assert "| random |" in text
    assert len(list((tmp_path / "cells").glob("*.svg"))) == 2
    told = {(one["cells"], one["spread"]): one for one in found.document.data["layouts"]}
    assert told[2, "random"]["seeds"] == 1
    assert told[1, "by-room"]["manager_share"] > 0


def test_a_stopped_grid_is_told_as_far_as_it_came() -> None:
    job = Trial(Layout(1), 1, 1.0, 8)
    found = document([(job, work(job))], ["2 cells: killed"])
    assert [section.name for section in found.document.sections] == ["cut", "rests"]
    assert found.failed == ["2 cells: killed"]
