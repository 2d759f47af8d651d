"""One service as a child process: its log file, its ready line, its end.

No event loop is involved: the supervisor polls, so a mesh can be driven from any loop or none.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

# A log past this size is moved to <name>.log.1, so a mesh that runs for months keeps two of them.
LOG_BYTES_MAX = 64 * 2**20


class ServiceProcess:
    """A child that may be started again under the same name; stdout and stderr go to its log."""

    def __init__(self, service: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.service = service
        self.command = list(command)
        self.environment = dict(environment)
        self.log = log
        self.started_s = 0.0  # monotonic
        self._child: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._ready = False

    @property
    def pid(self) -> int:
        assert self._child is not None, f"{self.service} was never started"
        return self._child.pid

    def start(self, extra: Mapping[str, str] | None = None) -> None:
        """Extra variables hold for this start alone (an injected fault must not come back after a restart)."""
        assert not self.alive(), f"{self.service} is running"
        rotate(self.log)
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        self._ready = False
        self.started_s = time.monotonic()
        with self.log.open("ab") as sink:
            self._child = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment, **(extra or {})},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # an interrupt at the terminal reaches the supervisor alone
            )

    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def exit_code(self) -> int | None:
        return None if self._child is None else self._child.poll()

    def ready(self) -> bool:
        """Whether it runs and this start has printed its ready line."""
        if not self._ready and self.alive():
            self._ready = any(event.get("event") == "ready" for event in self.events())
        return self._ready and self.alive()

    def events(self) -> list[dict[str, object]]:
        """The JSON lines that this start has logged so far."""
        return [event for line in self.output().splitlines() if (event := _parse(line)) is not None]

    def output(self) -> str:
        with self.log.open("rb") as source:
            source.seek(self._log_start)
            return source.read().decode(errors="replace")

    def send(self, number: signal.Signals) -> None:
        if self.alive():
            os.kill(self.pid, number)

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended within the time."""
        if self._child is None:
            return True
        try:
            self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True


def rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_name(log.name + ".1"))


def same_process(pid: int, started_s: float) -> bool:
    """Whether pid is still the process that started then (numbers are used again)."""
    try:
        return abs(psutil.Process(pid).create_time() - started_s) < 2.0 and _runs(pid)
    except psutil.Error:
        return False


def _runs(pid: int) -> bool:
    return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)


def started_s_of(pid: int) -> float:
    """When the process started, in seconds since the epoch; 0 if it is gone."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def _parse(line: str) -> dict[str, object] | None:
    if not line.startswith("{"):
        return None
    try:
        value = json.loads(line)
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
