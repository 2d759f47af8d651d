"""A reproduction's report: Markdown whose charts are files that stand alone."""

import xml.etree.ElementTree as ET
from pathlib import Path

from headrace.characterize import drawing
from headrace.characterize.document import Document, Section, Table
from headrace.report.provenance import Provenance
from loadtest.reproduce import markdown
from loadtest.reproduce.running import said

TOLD = Provenance("a machine", "2026-01-01", "abc", (1, 2, 3), "headrace reproduce tried")


def document() -> Document:
    many = {f"a system with a long name, number {n}": [(1.0, n + 1.0), (2.0, n + 2.0)] for n in range(4)}
    chart = drawing.lines("Waiting, by load", many, drawing.linear("load"), drawing.linear("seconds"))
    table = Table("A table", ("system", "p99 | s"), (("one", "1.0"), ("two", "2.0")), "A note.")
    section = Section("first", "First", "simulated", ("It is so.",), ("Resting on this.",), (table,), (chart,))
    return Document("Tried", "What was tried.", (section,))


def test_the_report_is_tables_and_links_to_charts(tmp_path: Path) -> None:
    path = markdown.write(document(), TOLD, tmp_path, "tried")
    text = path.read_text()
    assert "| system | p99 \\| s |\n|---|---:|\n| one | 1.0 |" in text
    assert "| Seeds | 1 to 3 |" in text
    assert "![Waiting, by load](tried/waiting-by-load.svg)" in text
    assert "failed" not in text
    assert "one that failed" in markdown.write(document(), TOLD, tmp_path, "tried", ["one that failed"]).read_text()


def test_a_chart_stands_alone_with_its_legend(tmp_path: Path) -> None:
    markdown.write(document(), TOLD, tmp_path, "tried")
    root = ET.parse(tmp_path / "tried" / "waiting-by-load.svg").getroot()
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [word for word in words if word and word.startswith("a system")] == list(_names())
    _, top, _, height = map(float, root.attrib["viewBox"].split())
    assert "var(--" not in (tmp_path / "tried" / "waiting-by-load.svg").read_text(), (
        "colours of a page that is not there"
    )
    assert all(top <= float(text.attrib["y"]) <= top + height for text in root.iter("{http://www.w3.org/2000/svg}text"))


def test_charts_of_a_former_run_are_taken_away(tmp_path: Path) -> None:
    (tmp_path / "tried").mkdir()
    (tmp_path / "tried" / "old.svg").write_text("<svg/>")
    markdown.write(document(), TOLD, tmp_path, "tried")
    assert [path.name for path in (tmp_path / "tried").iterdir()] == ["waiting-by-load.svg"]


def test_a_command_is_told_without_files_of_whoever_ran_it() -> None:
    words = ["--seeds", "4", "--rows", "/tmp/rows", "--json", "--data=/data", "--out", "docs"]
    assert said(words) == ["--seeds", "4", "--json", "--out", "docs"]


def _names() -> list[str]:
    return [f"a system with a long name, number {n}" for n in range(4)]
