"""What a running mesh writes down for the other commands: <data dir>/run.json.

Process ids stand beside their start times, so that an id that was given to a stranger is never signalled.
"""

import dataclasses
import json
import os
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.cli import credentials
from headrace.cli.process import same_process, started_s_of
from headrace.client.door import Door

NO_MESH = "no mesh is running here; start one with: headrace up --detach"
_SHM_ROOT = Path("/dev/shm")
_SHM_PREFIX = "headrace-"
# After SIGTERM to processes whose supervisor is gone; they drain for at most this long.
_ORPHAN_STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class RunState:
    state: str  # starting, ready, stopping, failed
    supervisor_pid: int
    supervisor_started_s: float
    waiting_for: tuple[str, ...] = ()
    error: str = ""
    http_urls: tuple[str, ...] = ()
    grpc_addresses: tuple[str, ...] = ()
    nats_url: str = ""
    redis_url: str = ""
    services: dict[str, str] = field(default_factory=dict)  # id -> gRPC address
    processes: dict[str, tuple[int, float]] = field(default_factory=dict)  # id -> pid, start time
    shm_dir: str = ""
    engine: str = ""
    model: str = ""
    secrets_dir: str = ""  # of a mesh that was started with --secure

    def alive(self) -> bool:
        return same_process(self.supervisor_pid, self.supervisor_started_s)


def for_this_process(state: str, **facts: Any) -> RunState:
    return RunState(state, os.getpid(), started_s_of(os.getpid()), **facts)


def write(data_dir: Path, state: RunState) -> None:
    path = data_dir / "run.json"
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(dataclasses.asdict(state), indent=2))
    fresh.replace(path)


def read(data_dir: Path) -> RunState | None:
    try:
        raw = json.loads((data_dir / "run.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    known = {entry.name for entry in dataclasses.fields(RunState)}
    raw["processes"] = {name: tuple(pair) for name, pair in raw.get("processes", {}).items()}
    return RunState(**{name: _frozen(value) for name, value in raw.items() if name in known})


def _frozen(value: Any) -> Any:
    """JSON knows lists alone."""
    return tuple(value) if isinstance(value, list) else value


def enter(state: RunState) -> None:
    """This process becomes an operator of that mesh: what its secrets say, unless the environment says otherwise."""
    if not state.secrets_dir:
        return
    held = Path(state.secrets_dir)
    for name, value in credentials.tls_variables(held, "client").items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("HEADRACE_API_KEY", credentials.operator_door(held).api_key)


def door(state: RunState) -> Door:
    """How this process gets into that mesh, as its operator."""
    enter(state)
    return Door.of_env()


def running(data_dir: Path) -> RunState | None:
    """The mesh of this data directory if it is up and ready."""
    state = read(data_dir)
    return state if state is not None and state.alive() and state.state == "ready" else None


def forget(data_dir: Path) -> None:
    (data_dir / "run.json").unlink(missing_ok=True)


def stop_orphans(state: RunState) -> list[str]:
    """Stop what a supervisor that died has left running; returns their names."""
    left = {name: pid for name, (pid, at) in state.processes.items() if same_process(pid, at)}
    for pid in left.values():
        os.kill(pid, signal.SIGCONT)
        os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + _ORPHAN_STOP_S
    while time.monotonic() < until and any(same_process(*state.processes[name]) for name in left):
        time.sleep(0.05)
    for name, pid in left.items():
        if same_process(*state.processes[name]):
            os.kill(pid, signal.SIGKILL)
    return sorted(left)


def make_shm_dir(data_dir: Path, root: Path = _SHM_ROOT) -> Path:
    """A directory in memory named after this process; the data directory where there is no tmpfs."""
    sweep_shm(root)
    if not os.access(root, os.W_OK):
        path = data_dir / "tensors"
    else:
        path = root / f"{_SHM_PREFIX}{os.getpid()}-{int(started_s_of(os.getpid()))}-{data_dir.stat().st_ino}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def sweep_shm(root: Path = _SHM_ROOT) -> list[Path]:
    """Remove the tensor directories of supervisors that are gone."""
    swept = []
    for path in root.glob(_SHM_PREFIX + "*"):
        pid, _, rest = path.name.removeprefix(_SHM_PREFIX).partition("-")
        started_s = rest.partition("-")[0]
        if pid.isdigit() and started_s.isdigit() and not same_process(int(pid), float(started_s)):
            shutil.rmtree(path, ignore_errors=True)
            swept.append(path)
    return swept
