"""Rows of runs kept in a file, one JSON object a line: a long grid that is stopped goes on where it was.

A row is found again by its run's whole description; whoever changes the code starts with another file.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from headrace.sim.sweep import Outcome, cores, sweep
from loadtest.benches import queue_clairvoyant, queue_runs, queue_saturation
from loadtest.benches.queue_clairvoyant import Search
from loadtest.benches.queue_runs import Run
from loadtest.benches.queue_saturation import Question
from loadtest.benches.report import say

Job = Run | Search | Question
_TELL_EVERY = 20  # ends


def work(job: Job) -> dict[str, Any]:
    if isinstance(job, Run):
        return queue_runs.carry_out(job)
    if isinstance(job, Search):
        return queue_clairvoyant.carry_out(job)
    return {"rps": queue_saturation.saturation_rps(job)}


class Rows:
    """path: None keeps nothing. run: headrace.sim.sweep.sweep, or what stands in for it."""

    def __init__(self, path: Path | None, run: Callable[..., Any] = sweep) -> None:
        self._path, self._run = path, run
        self._known: dict[str, dict[str, Any]] = {}
        self.failed: list[str] = []
        if path is not None and path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                self._known[entry["job"]] = entry["row"]

    def of(self, jobs: Sequence[Job], processes: int = 0) -> list[tuple[Job, dict[str, Any]]]:
        """In the order of the jobs; those that failed are missing, and told."""
        missing = [job for job in jobs if _name(job) not in self._known]
        if len(missing) < len(jobs):
            say(f"  {len(jobs) - len(missing)} of {len(jobs)} rows are there already")
        self._run(missing, work, processes=processes or cores(), seen=self._seen(len(missing)))
        return [(job, self._known[_name(job)]) for job in jobs if _name(job) in self._known]

    def _seen(self, total: int) -> Callable[[Outcome[Job, dict[str, Any]]], None]:
        ended = 0

        def seen(outcome: Outcome[Job, dict[str, Any]]) -> None:
            nonlocal ended
            ended += 1
            if outcome.value is None:
                self.failed.append(f"{outcome.job}: {outcome.error}")
                say(f"  {outcome.job} failed: {outcome.error}\n{outcome.trace}")
            else:
                self._keep(outcome.job, outcome.value)
            if ended % _TELL_EVERY == 0 or ended == total:
                say(f"  {ended} of {total}: {outcome.job}")

        return seen

    def _keep(self, job: Job, row: dict[str, Any]) -> None:
        self._known[_name(job)] = row
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"job": _name(job), "row": row}) + "\n")


def _name(job: Job) -> str:
    return json.dumps({"kind": type(job).__name__, **asdict(job)}, sort_keys=True)
