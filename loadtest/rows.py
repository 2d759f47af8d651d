"""Rows of runs kept in a file, one JSON object a line: a long grid that is stopped goes on where it was.

A row is found again by its run's whole description; whoever changes the code starts with another file.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

from headrace.sim.sweep import Outcome, cores, sweep

J = TypeVar("J")  # a dataclass

_TELL_EVERY = 20  # ends


class Rows(Generic[J]):
    """path: None keeps nothing. work: of one job, in a process of its own. run: headrace.sim.sweep.sweep, or what
    stands in for it."""

    def __init__(self, path: Path | None, work: Callable[[J], dict[str, Any]], run: Callable[..., Any] = sweep) -> None:
        self._path, self._work, self._run = path, work, run
        self._known: dict[str, dict[str, Any]] = {}
        self.failed: list[str] = []
        if path is not None and path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                self._known[entry["job"]] = entry["row"]

    def of(self, jobs: Sequence[J], processes: int = 0) -> list[tuple[J, dict[str, Any]]]:
        """In the order of the jobs; those that failed are missing, and told."""
        missing = [job for job in jobs if _name(job) not in self._known]
        if len(missing) < len(jobs):
            _say(f"  {len(jobs) - len(missing)} of {len(jobs)} rows are there already")
        self._run(missing, self._work, processes=processes or cores(), seen=self._seen(len(missing)))
        return [(job, self._known[_name(job)]) for job in jobs if _name(job) in self._known]

    def _seen(self, total: int) -> Callable[[Outcome[J, dict[str, Any]]], None]:
        ended = 0

        def seen(outcome: Outcome[J, dict[str, Any]]) -> None:
            nonlocal ended
            ended += 1
            if outcome.value is None:
                self.failed.append(f"{outcome.job}: {outcome.error}")
                _say(f"  {outcome.job} failed: {outcome.error}\n{outcome.trace}")
            else:
                self._keep(outcome.job, outcome.value)
            if ended % _TELL_EVERY == 0 or ended == total:
                _say(f"  {ended} of {total}: {outcome.job}")

        return seen

    def _keep(self, job: J, row: dict[str, Any]) -> None:
        self._known[_name(job)] = row
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"job": _name(job), "row": row}) + "\n")


def _name(job: Any) -> str:
    return json.dumps({"kind": type(job).__name__, **asdict(job)}, sort_keys=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
