"""A Document as Markdown with its charts beside it, one SVG file each: readable where a repository is looked at."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from markupsafe import Markup

from headrace.characterize.document import Document, Figure, Section, Table
from headrace.report.assumptions import Assumption
from headrace.report.provenance import Provenance

_BOX = re.compile(r'<svg viewBox="0 0 ([\d.]+) ([\d.]+)"([^>]*)>(.*)</svg>', re.DOTALL)
_MARGIN, _ROW = 12.0, 20.0
_CHARACTER = 6.9  # width of one, about


def write(document: Document, provenance: Provenance, folder: Path, name: str, failed: Sequence[str] = ()) -> Path:
    """`<folder>/<name>.md` and `<folder>/<name>/*.svg`; charts of a former run are taken away."""
    charts = folder / name
    charts.mkdir(parents=True, exist_ok=True)
    for old in charts.glob("*.svg"):
        old.unlink()
    path = folder / f"{name}.md"
    lines = [*_head(document, provenance, failed)]
    for section in document.sections:
        lines += _section(section, charts)
    if document.assumptions:
        lines += ["## What the figures rest on", ""]
        for assumption in document.assumptions:
            lines += _assumption(assumption)
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    return path


def standalone(figure: Figure) -> str:
    """The chart with its legend, on white, as a file of its own."""
    found = _BOX.fullmatch(str(figure.svg).strip())
    assert found is not None, f"{figure.title}: not a chart of ours"
    wide, high, attributes, inside = float(found[1]), float(found[2]), found[3], found[4]
    legend, top = _legend(figure, wide)
    top += _MARGIN
    full_w, full_h = wide + 2 * _MARGIN, high + top + _MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-_MARGIN:g} {-top:g} {full_w:g} {full_h:g}" '
        f'width="{full_w * 1.5:g}" height="{full_h * 1.5:g}"{attributes}>\n<style>\n{_style()}\n</style>\n'
        f'<rect x="{-_MARGIN:g}" y="{-top:g}" width="{full_w:g}" height="{full_h:g}" fill="#fff"/>\n'
        f"{legend}\n{inside}\n</svg>\n"
    )


@cache
def _style() -> str:
    """The page's rules for charts, for a file that stands in no page."""
    css = resources.files("headrace.report").joinpath("page.css").read_text()
    for name, colour in re.findall(r"--(\w+): (#\w+);", css):
        css = css.replace(f"var(--{name})", colour)
    rules = [line.removeprefix("svg ") for line in css.splitlines() if line.startswith("svg ") and line[4] in ".t"]
    return "\n".join(["text { font-family: system-ui, sans-serif; }", *rules]).replace("font-family: inherit; ", "")


def _legend(figure: Figure, wide: float) -> tuple[str, float]:
    """Entries from left to right, as many in a row as fit, and how high that is."""
    placed: list[tuple[float, int, str, Markup]] = []
    x, row = 0.0, 0
    for name, stroke in figure.legend:
        width = 40 + _CHARACTER * len(name) + 16
        if x and x + width > wide:
            x, row = 0.0, row + 1
        placed.append((x, row, name, stroke))
        x += width
    height = _ROW * (row + 1) if placed else 0.0
    entry = Markup('<path class="line" d="M{0:.1f} {1:.1f}h30" {2}/><text x="{3:.1f}" y="{4:.1f}">{5}</text>')
    drawn = []
    for x, row, name, stroke in placed:
        y = _ROW * row - height + 6
        drawn.append(entry.format(x, y, stroke, x + 36, y + 4, name))
    return "\n".join(drawn), height


def _head(document: Document, provenance: Provenance, failed: Sequence[str]) -> Iterator[str]:
    seeds = provenance.seeds
    told = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 2 else ", ".join(map(str, seeds))
    yield from (f"# {document.title}", "", document.about, "")
    yield from ("| | |", "|---|---|", f"| Date | {provenance.date} |", f"| Commit | {provenance.commit or '–'} |")
    yield from (f"| Machine | {_cell(provenance.machine)} |", f"| Seeds | {told} |")
    yield from (f"| Command | `{provenance.command}` |", "")
    if failed:
        yield from ("**These runs failed and are missing from every figure:**", "", *(f"- {f}" for f in failed), "")


def _section(section: Section, charts: Path) -> Iterator[str]:
    yield from (f"## {section.title}", "", f"*{section.origin}*", "")
    if section.findings:
        yield from (*(f"- {finding}" for finding in section.findings), "")
    for figure in section.figures:
        path = charts / f"{_slug(figure.title)}.svg"
        path.write_text(standalone(figure), encoding="utf-8")
        yield from (f"![{_cell(figure.title)}]({charts.name}/{path.name})", "", f"*{figure.title}*", "")
    for table in section.tables:
        yield from _table(table)
    for note in section.notes:
        yield from (note, "")


def _table(table: Table) -> Iterator[str]:
    yield from (f"### {table.title}", "")
    yield "| " + " | ".join(map(_cell, table.columns)) + " |"
    yield "|---|" + "---:|" * (len(table.columns) - 1)
    for row in table.rows:
        yield "| " + " | ".join(map(_cell, row)) + " |"
    yield ""
    if table.note:
        yield from (table.note, "")


def _assumption(assumption: Assumption) -> Iterator[str]:
    yield from (f"**{assumption.name}**", "", *(f"- {line}" for line in assumption.source), "")
    if assumption.text:
        yield from ("```toml", assumption.text.rstrip(), "```", "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60]
