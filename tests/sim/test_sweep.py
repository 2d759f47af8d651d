"""Sweeps: order, failures and deaths of jobs, overrides, and that nothing is left running."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from headrace.sim.result import Result
from headrace.sim.sweep import Outcome, changed, slim, stream, sweep
from headrace.workload.tables import ScenarioError
from tests.report.synthetic import result


def doubled(number: int) -> int:
    """0 takes a while; 13 fails; 99 kills its process."""
    if number == 0:
        time.sleep(0.5)
    if number == 13:
        raise KeyError("thirteen")
    if number == 14:
        raise ScenarioError("fleet: no pool")
    if number == 99:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def first_comes_last(job: tuple[str, int]) -> int:
    """0 ends when the others have."""
    folder, number = Path(job[0]), job[1]
    (folder / str(number)).touch()
    while number == 0 and len(list(folder.iterdir())) < 4:
        time.sleep(0.05)
    return number


def asleep(folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)


def test_outcomes_are_in_the_order_of_the_jobs_and_seen_as_they_come(tmp_path: Path) -> None:
    seen: list[int] = []
    jobs = [(str(tmp_path), number) for number in range(4)]
    outcomes = sweep(jobs, first_comes_last, processes=2, seen=lambda outcome: seen.append(outcome.job[1]))
    assert [outcome.value for outcome in outcomes] == [0, 1, 2, 3]
    assert seen[-1] == 0
    assert sorted(seen) == [0, 1, 2, 3]


def test_a_failing_job_says_why_and_the_others_go_on() -> None:
    outcomes = sweep([1, 13, 14, 2], doubled, processes=2)
    assert [outcome.value for outcome in outcomes] == [2, None, None, 4]
    assert [outcome.error for outcome in outcomes] == ["", "KeyError: 'thirteen'", "fleet: no pool", ""]
    assert "in doubled" in outcomes[1].trace


def test_the_death_of_a_process_fails_the_job_that_dies_alone() -> None:
    outcomes = sweep([0, 99, 0, 3, 4], doubled, processes=2)
    assert [outcome.value for outcome in outcomes] == [0, None, 0, 6, 8]
    assert "process died" in outcomes[1].error


def test_no_jobs_no_processes() -> None:
    assert sweep([], doubled) == []


def test_who_stops_listening_leaves_no_child() -> None:
    before = set(psutil.Process().children(recursive=True))
    outcomes = stream([1, 2, 3, 0, 0, 0], doubled, processes=2)
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    left = [child for child in psutil.Process().children(recursive=True) if child not in before]
    assert not [child for child in left if "spawn_main" in " ".join(child.cmdline())]


SLEEPERS = """
import signal
import sys
from headrace.sim.sweep import sweep
from tests.sim.test_sweep import asleep
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to it
    sweep([sys.argv[1]] * 2, asleep, processes=2)
"""


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL], ids=lambda stop: stop.name)
def test_an_interrupt_or_the_parents_death_ends_the_children(tmp_path: Path, stop: signal.Signals) -> None:
    script = tmp_path / "sleepers.py"
    script.write_text(SLEEPERS)
    marks = tmp_path / "marks"
    marks.mkdir()
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'libs'}:{root}"}
    parent = subprocess.Popen([sys.executable, str(script), str(marks)], env=environment, stderr=subprocess.PIPE)
    children = _until_two(marks)
    parent.send_signal(stop)
    parent.communicate(timeout=20)
    assert parent.returncode != 0
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert len(gone) == 2
    assert not alive


def _until_two(marks: Path) -> list[psutil.Process]:
    deadline_s = time.monotonic() + 60
    while len(found := list(marks.iterdir())) < 2:
        assert time.monotonic() < deadline_s, "the children did not start"
        time.sleep(0.05)
    return [psutil.Process(int(path.name)) for path in found]


RAW: dict[str, Any] = {
    "duration_s": 60,
    "classes": {"interactive": {}},
    "fleet": {"pools": [{"name": "enc", "count": 1}, {"name": "llm", "count": 2}]},
}


@pytest.mark.parametrize(
    ("key", "way"),
    [
        ("duration_s", ("duration_s",)),
        ("classes.batch-1.share", ("classes", "batch-1", "share")),
        ("fleet.pools.llm.count", ("fleet", "pools", 1, "count")),
        ("fleet.pools.0.count", ("fleet", "pools", 0, "count")),
    ],
)
def test_overrides_reach_their_place_in_a_copy(key: str, way: tuple[Any, ...]) -> None:
    at: Any = changed(RAW, {key: 7})
    for step in way:
        at = at[step]
    assert at == 7
    assert changed(RAW, {}) == RAW
    assert RAW["duration_s"] == 60
    assert [pool["count"] for pool in RAW["fleet"]["pools"]] == [1, 2]


@pytest.mark.parametrize("key", ["fleet.pools.gpu.count", "fleet.pools.5.count", "duration_s.x.y", "fleet.pools.x"])
def test_an_override_into_nothing_names_itself(key: str) -> None:
    with pytest.raises(ScenarioError, match=key):
        changed(RAW, {key: 7})


def test_slim_has_the_same_figures_in_about_half_the_bytes() -> None:
    full = result(requests=2_000)
    small = slim(full)
    assert small.summary() == full.summary()
    assert _bytes(small) < 0.7 * _bytes(full)


def _bytes(one: Result) -> int:
    return sum(getattr(one.requests, name).nbytes for name in type(one.requests).__slots__)


def test_an_outcome_without_error_has_a_value() -> None:
    assert Outcome(0, 1, 2).error == ""
