"""The page: well-formed, complete, alone, and readable by who does not see it."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from headrace.report import page
from headrace.report.assumptions import Assumption
from headrace.report.chart import Mark
from headrace.report.compare import compare
from headrace.report.digest import digest
from headrace.report.page import Report
from headrace.report.provenance import Provenance
from tests.report.synthetic import nothing, result

FROM = Provenance("a machine, 2 cores", "2026-11-28", "abc1234+", (1, 2), "headrace simulate evening-burst --seed 1 2")
REPORT = Report(
    title="evening-burst",
    about="An hour & a burst <b>of images</b>",
    provenance=FROM,
    compared=compare(digest(result(name, seed)) for name in ("headrace", "fcfs") for seed in (1, 2)),
    assumptions=(Assumption("Scenario evening-burst", ("As it was run.",), 'about = "<&>"'),),
    marks=(Mark(2_400.0, "kill llm-3"),),
)
PAGE = page.html(REPORT)
SECTIONS = {
    "comparison": 0,
    "attainment": 1,
    "latency": 4,
    "distribution": 2,
    "queues": 5,  # three classes in the manager, two pools
    "pools": 7,  # GPUs; of the LLMs instances, utilisation, batches, KV; of the encoders, steady and without KV, two
    "power": 3,
    "endings": 0,
    "assumptions": 0,
}
_VOID = ("meta", "br", "link", "img", "hr")


class _Elements(HTMLParser):
    """Every element closed by its own kind, and what there is."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag


def elements(text: str) -> _Elements:
    parser = _Elements()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


def test_it_is_well_formed_and_stands_alone() -> None:
    seen = elements(PAGE).seen
    assert not [tag for tag, _ in seen if tag in ("script", "link", "img", "iframe", "object")]
    assert not [value for _, attributes in seen for name, value in attributes.items() if name in ("src", "href")]
    assert not re.search(r"https?:|//[a-z]|@import|url\(", PAGE)


@pytest.mark.parametrize(("name", "charts"), SECTIONS.items())
def test_every_section_has_its_figures(name: str, charts: int) -> None:
    section = re.search(rf'<section id="{name}">.*?</section>', PAGE, re.DOTALL)
    assert section is not None
    assert section.group(0).count("<figure>") == charts


def test_every_chart_is_told_in_words_and_has_units() -> None:
    charts = re.findall(r'<svg viewBox="[^"]*" role="img".*?</svg>', PAGE, re.DOTALL)
    assert len(charts) == sum(SECTIONS.values())
    for chart in charts:
        root = ET.fromstring(chart)
        assert re.search(r"headrace: (between )?\d", root.attrib["aria-label"])
        labels = [text.text for text in root.iter("text") if text.attrib["class"] == "label"]
        assert len(labels) in (0, 2)  # the bars write their unit beside each value
    assert PAGE.count("time since the run&#39;s beginning, min</text>") == 19


def test_lines_of_a_policy_look_alike_everywhere() -> None:
    strokes = re.findall(r'<path class="line" d="[^"]*" (stroke="[^/]*")/>', PAGE)
    assert len(set(strokes)) == 2
    assert sum("stroke-dasharray" in stroke for stroke in set(strokes)) == 1


@pytest.mark.parametrize(
    "said",
    [
        *("evening-burst", "a machine, 2 cores", "2026-11-28", "abc1234+", "1, 2", "headrace simulate evening-burst"),
        "An hour &amp; a burst &lt;b&gt;of images&lt;/b&gt;",
        "about = &#34;&lt;&amp;&gt;&#34;",
        "kill llm-3, after 40 min",
        "of batch-1",
        "evictions, mean of a run",
    ],
)
def test_it_says(said: str) -> None:
    assert said in PAGE


def test_failures_are_told_and_nothing_can_be_drawn() -> None:
    alone = replace(
        REPORT, compared=compare([digest(nothing())]), failures=("evening-burst, edf, seed 1: broke",), marks=()
    )
    text = page.html(alone)
    elements(text)
    assert "evening-burst, edf, seed 1: broke" in text
    assert "nan" not in text
