"""Redis behind sentinels: the chart's own start script runs three servers and three sentinels here; the master is
killed, and the store goes on with the next one."""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace.cli import credentials
from headrace.mesh.config import Settings
from headrace.mesh.errors import StoreDown
from headrace.mesh.login import redis_options
from headrace.mesh.servers import find_redis
from headrace.mesh.store import Store

START = Path(__file__).parents[2] / "deploy/helm/headrace/files/redis-start.sh"
NAME = "mesh"


@dataclass
class Three:
    ports: list[int]
    processes: dict[tuple[str, int], "subprocess.Popen[bytes]"]

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{port + 20000}' for port in self.ports)}/{NAME}"


def _pair() -> int:
    """A free port whose sentinel's is free too."""
    for _ in range(200):
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1] - 20000
            if port < 1024:
                continue
            try:
                other.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free pair of ports")


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Three]:
    servers = find_redis().path.parent
    credentials.prepare(tmp_path / "all")
    papers = tmp_path / "papers"  # without certificates: the packaged server speaks no TLS
    papers.mkdir()
    for name in ("redis.acl", "sentinel.acl", "redis-replica.password", "redis.password"):
        (papers / name).write_text((tmp_path / "all" / name).read_text())
    ports = [_pair() for _ in range(3)]
    names = [f"127.0.0.1:{port}" for port in ports]
    found = Three(ports, {})
    with ExitStack() as stack:
        for port, name in zip(ports, names, strict=True):
            (tmp_path / str(port)).mkdir()
            told = {
                "PATH": f"{servers}:{os.environ['PATH']}",
                "SELF": name,
                "FIRST": names[0],
                "PEERS": " ".join(names),
                "MASTER": NAME,
                "MAXMEMORY": "32mb",
                "PAPERS": str(papers),
                "REDIS_PORT": str(port),
                "SENTINEL_PORT": str(port + 20000),
                "STATE": str(tmp_path / str(port)),
                "DOWN_MS": "600",
                "FAILOVER_MS": "3000",
            }
            for role in ("redis", "sentinel"):
                process = subprocess.Popen(["sh", str(START), role], env=told, stdout=subprocess.DEVNULL)
                stack.callback(process.wait)
                stack.callback(process.kill)
                found.processes[role, port] = process
        yield found


async def _until_written(store: Store, limit_s: float) -> None:
    """The first write that a master takes."""
    async with asyncio.timeout(limit_s):
        while True:
            try:
                await store.run(store.script("return redis.call('SET', KEYS[1], 1)"), [store.key("tokens", "a")], [])
            except StoreDown:
                await asyncio.sleep(0.1)
            else:
                return


@pytest.mark.timeout(60)
async def test_the_store_goes_on_with_the_next_master(three: Three, tmp_path: Path) -> None:
    login = {"HEADRACE_REDIS_USER": "headrace", "HEADRACE_REDIS_PASSWORD_FILE": str(tmp_path / "papers/redis.password")}
    settings = Settings.from_env({"HEADRACE_REDIS_URL": three.url, **login})
    store = await Store.connect(settings.redis_url, "local", redis_options(settings))
    await _until_written(store, 15.0)
    await _replicated(three, tmp_path)
    three.processes["redis", three.ports[0]].send_signal(signal.SIGKILL)
    await _until_written(store, 30.0)
    master = await _master(three, tmp_path, three.ports[1])
    await store.close()
    assert master in three.ports[1:]


async def _told(tmp_path: Path, port: int, *words: str) -> str:
    password = (tmp_path / "papers/redis-replica.password").read_text().strip()
    cli = find_redis().path.parent / "redis-cli"
    command = [str(cli), "-p", str(port), "--user", "sentinel", "--no-auth-warning", *words]
    done = await asyncio.to_thread(
        subprocess.run, command, env={"REDISCLI_AUTH": password}, capture_output=True, text=True, timeout=5, check=False
    )
    return str(done.stdout)


async def _replicated(three: Three, tmp_path: Path) -> None:
    """Both replicas are there, and the sentinels know of one another: before that a death finds no successor."""
    async with asyncio.timeout(20.0):
        while True:
            connected = "connected_slaves:2" in await _told(tmp_path, three.ports[0], "info", "replication")
            told = await _told(tmp_path, three.ports[1] + 20000, "info", "sentinel")
            if connected and "slaves=2,sentinels=3" in told:
                return
            await asyncio.sleep(0.1)


async def _master(three: Three, tmp_path: Path, port: int) -> int:
    told = await _told(tmp_path, port + 20000, "sentinel", "get-master-addr-by-name", NAME)
    return int(told.split()[1])
