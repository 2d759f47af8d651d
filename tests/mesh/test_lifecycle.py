"""Real processes: ready, drained by SIGTERM, gone at the second signal, ended by a bug or a bad set-up."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HEAD = """
import asyncio
from headrace.mesh.errors import BadSetup
from headrace.mesh.lifecycle import run
from headrace.mesh.logs import get_logger, set_up_logging
set_up_logging("p-0", "info")
"""
SERVES = """
async def main(life):
    life.ready("p-0", port=7)
    await life.stopping.wait()
    await asyncio.sleep(DRAIN_S)
    print("drained", flush=True)
run(main)
"""


def start(program: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    argv = [sys.executable, "-c", HEAD + program]
    return subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True, env=os.environ | (env or {}))


def test_ready_then_drained_by_sigterm(tmp_path: Path) -> None:
    ready_file = tmp_path / "ready"
    process = start(SERVES.replace("DRAIN_S", "0.05"), {"HEADRACE_READY_FILE": str(ready_file)})
    assert process.stdout is not None
    line = json.loads(process.stdout.readline())
    assert line == {"event": "ready", "process": "p-0", "pid": process.pid, "port": 7}
    assert json.loads(ready_file.read_text()) == line
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "drained\n")


def test_the_second_signal_does_not_wait() -> None:
    process = start(SERVES.replace("DRAIN_S", "60"))
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=5)
    assert (process.returncode, out) == (130, "")


def test_a_bug_in_a_callback_ends_the_process() -> None:
    process = start("""
async def main(life):
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(60)
run(main)
""")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "ZeroDivisionError" in json.loads(err.splitlines()[-1])["exception"]


def test_a_bad_set_up_is_one_line_without_a_traceback() -> None:
    process = start("""
async def main(life):
    raise BadSetup("HEADRACE_X is wrong: do this")
run(main)
""")
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (78, "headrace: HEADRACE_X is wrong: do this\n")


def test_logs_are_json_with_their_fields() -> None:
    process = start("""
log = get_logger("queue")
from pathlib import Path
traceparent = "00-" + "c" * 32 + "-" + "d" * 16 + "-01"
log.info("requeued", request_id="ab", traceparent=traceparent, path=Path("/x"))
log.debug("never")
""")
    _, err = process.communicate(timeout=20)
    line = json.loads(err)
    expected = {"event": "requeued", "level": "info", "process": "p-0", "logger": "queue", "request_id": "ab"}
    assert line == expected | {"trace_id": "c" * 32, "span_id": "d" * 16, "path": "/x", "time_s": line["time_s"]}
