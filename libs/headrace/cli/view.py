"""How the commands speak: steps with their time, tables, answers as they stream.

Colour and live updates on a terminal; plain lines elsewhere, so that a log reads the same.
"""

import sys
import time
from collections.abc import Sequence

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.table import Table

from headrace.cli import timeline
from headrace.cli.runstate import RunState

PIPED_COLUMNS = 140


def columns() -> int | None:
    """Of tables: None as many as the terminal has; what goes into a file is not cut to a terminal that nobody sees."""
    return None if sys.stdout.isatty() else PIPED_COLUMNS


class Console:
    def __init__(self) -> None:
        self._out = RichConsole(highlight=False, soft_wrap=True, width=columns())
        self._started_s = time.monotonic()

    def step(self, text: str) -> None:
        self._out.print(f"[dim]{time.monotonic() - self._started_s:6.1f} s[/dim]  {escape(text)}")

    def plain(self, text: str) -> None:
        self._out.print(escape(text))

    def error(self, text: str) -> None:
        self._out.print(f"[bold red]error:[/bold red] {escape(text)}")

    def title(self, text: str) -> None:
        self._out.print(f"\n[bold]{escape(text)}[/bold]")

    def note(self, text: str) -> None:
        self._out.print(f"[dim]{escape(text)}[/dim]")

    def stream(self, text: str) -> None:
        """A piece of an answer, as it comes."""
        self._out.print(escape(text), end="")
        self._out.file.flush()

    def mesh_ready(self, state: RunState | None) -> None:
        assert state is not None, "a mesh that is ready has written its state"
        self._out.print(f"\n[bold green]ready[/bold green]: {escape(state.model)} on the {escape(state.engine)} engine")
        for url in state.http_urls:
            self._out.print(f"  HTTP (OpenAI)  {escape(url)}/v1")
        for address in state.grpc_addresses:
            self._out.print(f"  gRPC           {escape(address)}")
        self._out.print(f"  NATS           {escape(state.nats_url)}")
        self._out.print(f"  Redis          {escape(state.redis_url)}")

    def timeline(self, spans: Sequence[timeline.Interval]) -> None:
        for line in timeline.lines(spans):
            self._out.print(f"  [cyan]{escape(line)}[/cyan]")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
        for column in columns:
            table.add_column(column)
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        self._out.print()
        self._out.print(table)
