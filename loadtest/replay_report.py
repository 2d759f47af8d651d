"""`headrace load` for an open loop: replays a scenario, says how it goes, prints what a simulation would."""

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from headrace.cli.view import Console
from headrace.client.door import Door
from headrace.client.errors import HeadraceError
from headrace.report.compare import Compared
from headrace.report.digest import digest
from headrace.report.provenance import plain, provenance
from headrace.report.table import columns
from headrace.report.units import NOTHING
from headrace.workload.scenario import Scenario, ScenarioError
from loadtest.replay import replay
from loadtest.replay_rows import LATE_S, Replayed, write

_VALUE_COLUMNS = 9
_SIMULATED = ("gpu_hours", "wall_s", "sim_requests_per_s")  # figures that only a simulation has


def run(scenario: Scenario, addresses: Sequence[str], door: Door, *, as_json: bool, out: Path | None) -> int:
    """The exit code. With as_json all but the JSON object goes to standard error."""
    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        console = Console()
        console.step(f"{scenario.name}: {scenario.about}")
        try:
            done = asyncio.run(replay(scenario, addresses, say=console.step, door=door))
        except (ScenarioError, HeadraceError) as error:
            console.error(str(error))
            return 1
        show(console, done)
        if out is not None:
            write(done.rows, out)
            console.note(f"one line a request: {out}")
    if as_json:
        head = provenance(["headrace", *sys.argv[1:]], [scenario.seed]).head()
        print(json.dumps(plain(head | {"scenario": scenario.name} | done.summary())), flush=True)
    return 0


def show(console: Console, done: Replayed) -> None:
    compared = [Compared("live", (digest(done.result),))]
    one_class = len(done.result.classes) == 1
    rows = []
    for column in columns(compared):
        figure, cell = column.figure, column.cells()[0]
        if figure.key in _SIMULATED or cell == NOTHING or (one_class and figure.key.startswith("class:")):
            continue
        rows.append((f"{figure.head} {figure.sub}", cell.rjust(_VALUE_COLUMNS), column.unit.name))
    console.table(
        f"{done.result.scenario}, live, {done.result.duration_s:.1f} s",
        ("figure", "value".rjust(_VALUE_COLUMNS), "unit"),
        rows,
    )
    for text in remarks(done):
        console.note(text)


def remarks(done: Replayed) -> list[str]:
    """What a reader must know before trusting the figures."""
    facts, said = done.summary(), list[str]()
    if facts["late"]:
        said.append(
            f"{facts['late']} requests were sent more than {LATE_S:g} s late, at most {facts['late_max_s']:.2f} s: "
            "their figures hold this client's delay too"
        )
    if open_still := sum(not row.reason for row in done.rows):
        said.append(f"{open_still} requests had not ended when the scenario's drain_s was over; they were cancelled")
    longer = sum(row.input_tokens > row.wanted_tokens for row in done.rows)
    if longer:
        said.append(f"{longer} prompts are longer than the scenario's: the model's template leaves no room")
    first = {row.failure: row.message for row in reversed(done.rows)}
    said += [f"{count} x {failure}, the first: {first[failure]}" for failure, count in facts["failures"].items()]
    return said
