"""Real servers for the tests: NATS and Redis on free loopback ports in temporary directories.

`nats_url` and `redis_url` are shared by a session; `nats_server` and `redis_server` belong to one test, which
may stop, kill and restart them.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from headrace.mesh import servers

# Several processes of tests share a machine: a thread per core in each of them, spinning while it waits for the others,
# made training in a test eight times as slow as with one. Before the first import of torch or of numpy.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# Tests that start whole meshes mostly wait, for leases and restarts. They go one after the other in two of
# pytest-xdist's workers: those that kill in one, those that answer in the other; the third runs the rest file by file,
# which is what the processor does while they wait. They come first: the longest units.
_MESHES = {
    name: group
    for group, names in {"killing": ("chaos", "deploy", "worker"), "answering": ("e2e", "parity")}.items()
    for name in names
}


class _FewMeshesAtATime(LoadScopeScheduling):
    """By file. Not xdist_group marks: with pytest 9.2 xdist 3.8 no longer sees them, silently (its issue 1386)."""

    def _split_scope(self, nodeid: str) -> str:
        return _MESHES.get(nodeid.split("/")[1], nodeid.split("::", 1)[0])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.nodeid.split("/")[1] not in _MESHES)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    if config.getoption("dist") != "loadgroup":
        return None
    config.option.loadscopereorder = False  # in the order of collection, not the unit with most tests first
    return _FewMeshesAtATime(config, log)


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
