"""Real servers for the tests: NATS and Redis on free loopback ports in temporary directories.

`nats_url` and `redis_url` are shared by a session; `nats_server` and `redis_server` belong to one test, which
may stop, kill and restart them.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.mesh import servers

# Tests that mostly wait for leases and restarts: `make test` runs them beside the others (pytest-xdist, two workers).
_WAITING = tuple(Path(__file__).parent / name for name in ("chaos", "deploy"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        waits = any(folder in item.path.parents for folder in _WAITING)
        item.add_marker(pytest.mark.xdist_group("waiting" if waits else "working"))


@pytest.fixture(scope="session")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = servers.nats_server(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = servers.redis_server(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[servers.NatsServer]:
    server = servers.nats_server(tmp_path / "nats")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[servers.RedisServer]:
    server = servers.redis_server(tmp_path / "redis")
    server.start()
    yield server
    server.stop()
