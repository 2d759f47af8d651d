"""The commands as a user types them: up in the background, status, chat, down; and after its supervisor was killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace.cli import runstate
from headrace.cli.process import same_process

MESH = ("--engine", "profile", "--model", "profile-tiny")


def headrace(*words: str, within_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace.cli.main", *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=within_s, stdin=subprocess.DEVNULL, check=False
    )


def left_running(state: runstate.RunState) -> list[str]:
    return [name for name, (pid, at) in state.processes.items() if same_process(pid, at)]


def until_gone(state: runstate.RunState, within_s: float = 10.0) -> list[str]:
    end_s = time.monotonic() + within_s
    while (left := left_running(state)) and time.monotonic() < end_s:
        time.sleep(0.05)
    return left


def test_up_status_chat_down(tmp_path: Path) -> None:
    where = ("--data-dir", str(tmp_path))
    started = headrace("up", "--detach", *MESH, *where)
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        state = runstate.running(tmp_path)
        assert state is not None
        assert len(left_running(state)) == 8, "six services and two servers"
        assert state.http_urls[0] in started.stdout
        again = headrace("up", "--detach", *MESH, *where)
        assert "already running" in again.stdout
        status = headrace("status", *where)
        assert status.returncode == 0, status.stderr
        assert "decode-0" in status.stdout
        picture = Path(__file__).parents[2] / "libs" / "headrace" / "assets" / "demo" / "digit-3.png"
        answer = headrace("chat", "what?", "--image", str(picture), "--max-tokens", "9", "--timeline", *where)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        assert "first token" in answer.stdout
        refused = headrace("chat", "what?", "--image", __file__, *where)
        assert refused.returncode == 1
        assert "messages[0].content[0]" in refused.stdout
    finally:
        stopped = headrace("down", *where)
    assert stopped.returncode == 0, stopped.stdout
    assert until_gone(state) == []
    assert not Path(state.shm_dir).exists()
    assert runstate.read(tmp_path) is None


def test_down_after_the_supervisor_was_killed(tmp_path: Path) -> None:
    """What it started goes on serving, and is stopped by process id."""
    where = ("--data-dir", str(tmp_path))
    assert headrace("up", "--detach", *MESH, *where).returncode == 0
    state = runstate.running(tmp_path)
    assert state is not None
    os.kill(state.supervisor_pid, signal.SIGKILL)
    try:
        answer = headrace("chat", "still there?", "--max-tokens", "5", "--server", state.grpc_addresses[0])
        assert answer.returncode == 0, answer.stdout
    finally:
        stopped = headrace("down", *where)
    assert "decode-0" in stopped.stdout
    assert until_gone(state) == []


def test_a_dead_service_is_started_again(tmp_path: Path) -> None:
    where = ("--data-dir", str(tmp_path))
    assert headrace("up", "--detach", *MESH, *where).returncode == 0
    try:
        before = runstate.running(tmp_path)
        assert before is not None
        os.kill(before.processes["gateway-0"][0], signal.SIGKILL)
        answer = headrace("chat", "back again?", "--max-tokens", "5", *where)  # the SDK tries until it is back
        after = runstate.running(tmp_path)
        assert answer.returncode == 0, answer.stdout
        assert after is not None
        assert after.processes["gateway-0"][0] != before.processes["gateway-0"][0]
        assert after.http_urls == before.http_urls
    finally:
        headrace("down", *where)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--colocate", "prefill,cook"), "unknown stage"),
        (("--prefill", "99"), "not between 1 and 16"),
        (("--frobnicate",), "unknown option"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = headrace("up", *words, "--data-dir", str(tmp_path))
    assert done.returncode == 2
    assert said in done.stderr


def test_a_service_that_cannot_start_is_shown_with_its_log(tmp_path: Path) -> None:
    done = headrace("up", "--engine", "profile", "--model", "no-such-model", "--data-dir", str(tmp_path))
    assert done.returncode == 1
    assert "no-such-model" in done.stdout
    assert runstate.read(tmp_path) is None
