"""Finding, starting, killing and restarting the two servers."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from headrace.mesh import servers
from headrace.mesh.errors import BadSetup


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("nats-server: v2.15.1", (2, 15, 1)),
        ("nats-server: v2.9.10-beta.1", (2, 9, 10)),
        ("Redis server v=6.2.14 sha=40305114:0 malloc=libc bits=64", (6, 2, 14)),
        ("Valkey server v=8.1", (8, 1)),
    ],
)
def test_versions_are_read_from_what_the_binaries_print(line: str, version: tuple[int, ...]) -> None:
    assert servers.parse_version(line) == version


def test_a_line_without_a_version_is_refused() -> None:
    with pytest.raises(BadSetup, match="cannot read a version"):
        servers.parse_version("hello")


def test_found_binaries_are_new_enough() -> None:
    assert servers.find_nats().version >= servers.NATS_MIN
    assert servers.find_redis().version >= servers.REDIS_MIN


def test_a_missing_binary_says_what_to_do() -> None:
    with pytest.raises(BadSetup, match="pip install x"):
        servers._newest("no-such-server", (1, 0), "pip install x")


def test_a_killed_server_restarts_on_its_port(redis_server: servers.RedisServer) -> None:
    port, pid = redis_server.port, redis_server.pid
    redis_server.kill()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    redis_server.restart()
    assert redis_server.running()
    assert (redis_server.port, redis_server.pid != pid) == (port, True)


def test_a_server_that_cannot_start_shows_its_log(nats_server: servers.NatsServer, tmp_path: object) -> None:
    second = servers.Server("second", nats_server.command, servers.free_port(), nats_server.log)
    with pytest.raises(BadSetup, match="address already in use"):
        second.start()


def test_a_server_goes_with_its_launcher(tmp_path: Path) -> None:
    program = """
import sys, time; from pathlib import Path
from headrace.mesh import servers
print(servers.redis_server(Path(sys.argv[1])).start().pid, flush=True); time.sleep(60)
"""
    launcher = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "redis")], stdout=subprocess.PIPE)
    assert launcher.stdout is not None
    pid = int(launcher.stdout.readline())
    assert psutil.Process(pid).name() == "redis-server"
    launcher.kill()
    launcher.wait()
    launcher.stdout.close()
    deadline_s = time.monotonic() + 5.0
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
