"""A Document on a terminal, or as plain lines elsewhere: findings first, then tables."""

import shutil
import textwrap
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from headrace.characterize.document import Document, Section, Table

_WIDTH_UNKNOWN = 120
_READABLE = 100  # characters of a line of text


def show(document: Document, out: TextIO) -> None:
    width = shutil.get_terminal_size((_WIDTH_UNKNOWN, 24)).columns if out.isatty() else _WIDTH_UNKNOWN
    console = Console(file=out, highlight=False, width=width)
    console.print(f"[bold]{escape(document.title)}[/bold]")
    _text(console, document.about)
    for section in document.sections:
        _section(console, section)


def _section(console: Console, section: Section) -> None:
    console.print(f"\n[bold]{escape(section.title)}[/bold] [dim]({section.origin})[/dim]")
    for finding in section.findings:
        _text(console, finding, "- ")
    for table in section.tables:
        _table(console, table)
    for note in section.notes:
        _text(console, note, style="dim")


def _table(console: Console, table: Table) -> None:
    drawn = RichTable(
        box=None,
        header_style="bold",
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for at, column in enumerate(table.columns):
        drawn.add_column(escape(column), justify="right" if at else "left", overflow="fold")
    for row in table.rows:
        drawn.add_row(*(escape(cell) for cell in row))
    console.print()
    _text(console, table.title, style="italic")
    console.print(drawn)
    if table.note:
        _text(console, table.note, style="dim")


def _text(console: Console, text: str, lead: str = "", style: str = "") -> None:
    wide = min(console.width, _READABLE)
    for line in textwrap.wrap(text, wide, initial_indent=lead, subsequent_indent=" " * len(lead)):
        console.print(escape(line), style=style or None)
