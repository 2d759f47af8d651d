"""Child processes: ready line, end, restart; run state that outlives its writer; pauses between restarts."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from headrace.cli import runstate
from headrace.cli.process import ServiceProcess, same_process, started_s_of
from headrace.cli.restarts import Restarts

READY = """
import json, os, time
print(json.dumps({"event": "ready", "fault": os.environ.get("FAULT")}), flush=True)
time.sleep(60)
"""


def until(condition: object, within_s: float = 10.0) -> bool:
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


def test_a_process_is_ready_when_this_start_says_so(tmp_path: Path) -> None:
    service = ServiceProcess("s-0", [sys.executable, "-c", READY], {}, tmp_path / "s.log")
    service.start({"FAULT": "once"})
    assert until(service.ready)
    first = service.pid
    service.send(signal.SIGKILL)
    assert service.wait(5)
    assert service.exit_code() == -signal.SIGKILL
    service.start()
    assert not service.ready() or service.pid != first
    assert until(service.ready)
    assert [event["fault"] for event in service.events()] == [None], "the extra variable held for one start"
    assert service.log.read_text().count("ready") == 2
    service.send(signal.SIGTERM)
    assert service.wait(5)


def test_a_number_that_was_given_again_is_another_process() -> None:
    me, now = os.getpid(), started_s_of(os.getpid())
    assert same_process(me, now)
    assert not same_process(me, now - 100)


def test_orphans_are_stopped_and_strangers_are_not(tmp_path: Path) -> None:
    sleepers = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) for _ in range(2)]
    ours, stranger = (sleeper.pid for sleeper in sleepers)
    state = runstate.RunState(
        "ready",
        supervisor_pid=1 << 22,
        supervisor_started_s=1.0,
        processes={"decode-0": (ours, started_s_of(ours)), "prefill-0": (stranger, started_s_of(stranger) - 100)},
    )
    runstate.write(tmp_path, state)
    assert runstate.read(tmp_path) == state
    assert runstate.running(tmp_path) is None
    assert runstate.stop_orphans(state) == ["decode-0"]
    assert sleepers[0].wait(5) == -signal.SIGTERM
    assert sleepers[1].poll() is None
    sleepers[1].kill()
    sleepers[1].wait(5)


def test_tensor_directories_of_dead_supervisors_are_swept(tmp_path: Path) -> None:
    mine = runstate.make_shm_dir(tmp_path, root=tmp_path)
    dead = tmp_path / f"headrace-{1 << 22}-1000-7"
    dead.mkdir()
    (tmp_path / "headrace-notes").mkdir()
    assert runstate.sweep_shm(tmp_path) == [dead]
    assert mine.is_dir()
    assert (tmp_path / "headrace-notes").is_dir()


def test_restarts_come_later_and_later_and_forgive() -> None:
    restarts, pauses = Restarts(), []
    for n in range(9):
        pauses.append(restarts.pause_s("decode-0"))
        restarts.started("decode-0", float(n))
    assert pauses == [0.0, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert not restarts.due("decode-0", 8.0 + 4.9)
    assert restarts.due("decode-0", 8.0 + 5.0)
    assert restarts.due("prefill-0", 8.0), "others are not held back"
    assert restarts.due("decode-0", 8.0 + 31)
    assert restarts.pause_s("decode-0") == 0.0, "one that lived for long starts anew"
