"""What a row of `bench queue` is of: a policy's run, simulated or live, a search for the best schedule, or a fleet's
saturation."""

from typing import Any

from loadtest.benches import queue_clairvoyant, queue_live, queue_runs, queue_saturation
from loadtest.benches.queue_clairvoyant import Search
from loadtest.benches.queue_live import LiveRun
from loadtest.benches.queue_runs import Run
from loadtest.benches.queue_saturation import Question

Job = Run | LiveRun | Search | Question


def work(job: Job) -> dict[str, Any]:
    if isinstance(job, Run):
        return queue_runs.carry_out(job)
    if isinstance(job, LiveRun):
        return queue_live.carry_out(job)
    if isinstance(job, Search):
        return queue_clairvoyant.carry_out(job)
    return {"rps": queue_saturation.saturation_rps(job)}
