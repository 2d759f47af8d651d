"""Fault injection: parsed strictly, fires at the n-th crossing in a real process, free when not armed."""

import json
import os
import signal
import subprocess
import sys

import pytest

from headrace.mesh import faults

PROGRAM = """
from headrace.mesh.faults import reach
for i in range(5):
    reach("decode.token", f"r{i}"); reach("decode.ended", "x"); print(i, flush=True)
"""


def run(spec: str) -> subprocess.Popen[str]:
    env = os.environ | {"HEADRACE_FAULT": spec}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", PROGRAM], env=env, stdout=pipe, stderr=pipe, text=True)


def test_the_third_crossing_kills_and_says_which() -> None:
    process = run("decode.token:3:kill")
    out, err = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGKILL
    assert out.split() == ["0", "1"]
    assert json.loads(err) == {
        "event": "fault",
        "transition": "decode.token",
        "request_id": "r2",
        "action": "kill",
    }


def test_a_stopped_process_goes_on_when_continued() -> None:
    process = run("decode.token:2:stop")
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    process.send_signal(signal.SIGCONT)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out.split()) == (0, ["0", "1", "2", "3", "4"])


def test_not_armed_nothing_happens() -> None:
    process = run("")
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out.split(), err) == (0, ["0", "1", "2", "3", "4"], "")


@pytest.mark.parametrize("spec", ["decode.token", "decode.token:0:kill", "decode.tokn:1:kill", "decode.token:1:burn"])
def test_a_fault_that_could_never_fire_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="HEADRACE_FAULT"):
        faults.parse(spec)
