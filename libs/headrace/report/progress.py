"""How far a sweep has come: a bar on a terminal, a line per run elsewhere, both on standard error."""

import sys
import time
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from headrace.sim.sweep import Outcome

_LINE_S = 15.0  # without a terminal: longest silence


class Bar:
    """A context; `seen` and `going` are what sweep() calls. A failure is a line of its own in both forms."""

    def __init__(self, total: int, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._total, self._done = total, 0
        self._started_s = self._told_s = time.monotonic()
        self._bar: Progress | None = None
        if self._out.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            times = (TimeElapsedColumn(), TextColumn("[dim]left[/dim]"), TimeRemainingColumn())
            self._bar = Progress(*columns, *times, console=Console(file=self._out), transient=True)
            self._task = self._bar.add_task("simulating", total=total)

    def __enter__(self) -> "Bar":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def seen(self, outcome: Outcome[Any, Any]) -> None:
        self._done += 1
        text = f"{outcome.job}: {outcome.error}" if outcome.error else str(outcome.job)
        if self._bar is None:
            self._line(f"{self._done} of {self._total}  {text}")
        elif outcome.error:
            self._bar.console.print(text, markup=False, highlight=False)

    def going(self, jobs_done: float) -> None:
        """What sweep() calls between outcomes."""
        if self._bar is not None:
            self._bar.update(self._task, completed=max(jobs_done, self._done))
        elif time.monotonic() - self._told_s >= _LINE_S:
            self._line(f"{self._done} of {self._total}  {jobs_done / self._total:.0%} of all is done")

    def _line(self, text: str) -> None:
        self._told_s = time.monotonic()
        print(f"{self._told_s - self._started_s:6.1f} s  {text}", file=self._out, flush=True)
