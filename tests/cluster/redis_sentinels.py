"""A real Redis master with two replicas and three Sentinels on loopback, as the cluster's compose file sets them up
but for quicker time-outs.
"""

import asyncio
import signal
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from redis.exceptions import RedisError

from headrace.mesh.servers import Server, find_redis, free_port

SERVICE = "headrace"
SERVERS = 3
DOWN_MS = 700  # of silence, until a Sentinel takes a server for dead
LAG_S = 2  # a master whose replicas are behind by more takes no write
FORMED_S = 20.0


class Sentinels:
    """`async with Sentinels(directory) as redis`: every Sentinel knows the others and a replica that follows."""

    def __init__(self, directory: Path) -> None:
        ports = [free_port() for _ in range(SERVERS)]
        self.servers = [_server(directory, index, port, ports[0]) for index, port in enumerate(ports)]
        self.sentinels = [_sentinel(directory, index, ports[0]) for index in range(SERVERS)]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    async def __aenter__(self) -> Self:
        try:
            for server in (*self.servers, *self.sentinels):
                await asyncio.to_thread(server.start)
            await self.until_formed()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        for server in (*self.sentinels, *self.servers):
            await asyncio.to_thread(server.kill)

    async def until_formed(self) -> None:
        until = time.monotonic() + FORMED_S
        while not all(map(self._formed, self.sentinels)):
            assert time.monotonic() < until, "the Sentinels have not found one another"
            await asyncio.sleep(0.05)

    def _formed(self, sentinel: Server) -> bool:
        with redis.Redis(port=sentinel.port, socket_timeout=1.0) as asked:
            try:
                state = asked.sentinel_master(SERVICE)
                replicas = asked.sentinel_slaves(SERVICE)
            except RedisError:
                return False
        linked = [replica for replica in replicas if replica["master-link-status"] == "ok"]
        return bool(state["num-other-sentinels"] == SERVERS - 1 and linked)

    def master(self) -> int:
        """Whom most Sentinels name."""
        told = [self._named(sentinel) for sentinel in self.sentinels if sentinel.running()]
        port = max(told, key=told.count)
        return next(index for index, server in enumerate(self.servers) if server.port == port)

    def _named(self, sentinel: Server) -> int:
        with redis.Redis(port=sentinel.port, socket_timeout=1.0) as asked:
            return int(asked.sentinel_get_master_addr_by_name(SERVICE)[1])

    def direct(self, index: int) -> "redis.Redis":
        """Past the Sentinels; to be closed."""
        return redis.Redis(port=self.servers[index].port, socket_timeout=1.0)

    def pause(self, index: int) -> None:
        _signal(self.servers[index], signal.SIGSTOP)

    def resume(self, index: int) -> None:
        _signal(self.servers[index], signal.SIGCONT)


def _signal(server: Server, number: signal.Signals) -> None:
    assert server.process is not None
    server.process.send_signal(number)


def _server(directory: Path, index: int, port: int, master: int) -> Server:
    here = directory / f"redis-{index}"
    here.mkdir(parents=True)
    options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": here}
    options |= {"repl-diskless-sync": "yes", "repl-diskless-sync-delay": 0, "repl-ping-replica-period": 1}
    options |= {"min-replicas-to-write": 1, "min-replicas-max-lag": LAG_S}
    command = [str(find_redis().path)]
    for key, value in options.items():
        command += [f"--{key}", str(value)]
    if index:
        command += ["--replicaof", "127.0.0.1", str(master)]
    return Server("redis-server", command, port, here / "redis.log")


def _sentinel(directory: Path, index: int, master: int) -> Server:
    here, port = directory / f"sentinel-{index}", free_port()
    here.mkdir(parents=True)
    config = here / "sentinel.conf"  # which it rewrites
    config.write_text(f"""
bind 127.0.0.1
port {port}
dir "{here}"
sentinel monitor {SERVICE} 127.0.0.1 {master} 2
sentinel down-after-milliseconds {SERVICE} {DOWN_MS}
sentinel failover-timeout {SERVICE} 3000
""")
    return Server("redis-sentinel", [str(find_redis().path), str(config), "--sentinel"], port, here / "redis.log")
