"""`headrace load` for a scenario with a drill: runs it, prints what it has shown and whether that is what is wanted."""

import asyncio
import json
import logging
import os
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc
import uvloop

from headrace.cli.runstate import RunState
from headrace.cli.view import Console
from headrace.client.errors import HeadraceError
from headrace.report.provenance import plain, provenance
from headrace.workload.scenario import Scenario, ScenarioError
from loadtest.drills import overload_report, storm_report
from loadtest.drills.overload import overload
from loadtest.drills.storm import abort_storm
from loadtest.drills.target import Target

FALLS_SHORT = 3  # the exit code of a drill that ran and whose verdict is not what is wanted


def run(scenario: Scenario, state: RunState, data_dir: Path, *, as_json: bool) -> int:
    """The exit code. With as_json all but the JSON object goes to standard error."""
    assert scenario.drill is not None
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # streams over TLS warn of themselves at each end
    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        console = Console()
        console.step(f"{scenario.name}: {scenario.about}; load average {os.getloadavg()[0]:.1f}")
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                kept, figures = runner.run(_drill(scenario, Target.of(state, data_dir), console))
        except (ScenarioError, HeadraceError) as error:
            console.error(str(error))
            return 1
        except grpc.RpcError as error:
            console.error(f"the queue manager does not answer: {error}")
            return 1
    if as_json:
        head = provenance(["headrace", *sys.argv[1:]], [scenario.seed]).head()
        told = {"scenario": scenario.name, "load_average": os.getloadavg()} | figures
        print(json.dumps(plain(head | told)), flush=True)
    return 0 if kept else FALLS_SHORT


async def _drill(scenario: Scenario, target: Target, console: Console) -> tuple[bool, dict[str, Any]]:
    assert scenario.drill is not None
    if scenario.drill.kind == "overload":
        levels = await overload(scenario, target, console.step)
        checks, figures = overload_report.verdict(levels), overload_report.figures(levels)
        overload_report.show(console, levels, checks)
    else:
        stormy = await abort_storm(scenario, target, console.step)
        checks, figures = storm_report.verdict(stormy), storm_report.figures(stormy)
        storm_report.show(console, stormy, checks)
    return all(check.kept for check in checks), figures | {"verdict": [asdict(check) for check in checks]}
