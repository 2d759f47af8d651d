"""One mesh for all end-to-end tests; after each of them it must hold nothing."""

import inspect
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from headrace.cli.supervisor import Mesh
from tests.e2e.leaks import assert_free
from tests.e2e.meshes import small_mesh, until_heard
from tests.e2e.otlp import Receiver, receiver

# Cancel, disconnect and deadline have their own, stricter limit in their tests; an ended request's RESULTS
# record, journal record and keys go within a heartbeat or two.
_FREE_WITHIN_S = 5.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The shared mesh lives on the session's loop, so its tests run there too."""
    for item in items:
        is_async = isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj)
        if is_async and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(scope="session")
def traces() -> Iterator[Receiver]:
    with receiver() as kept:
        yield kept


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_mesh(tmp_path_factory: pytest.TempPathFactory, traces: Receiver) -> AsyncIterator[Mesh]:
    environment = {"HEADRACE_OTLP_ENDPOINT": traces.url}
    config = small_mesh(tmp_path_factory.mktemp("mesh"), environment=environment)
    async with Mesh(config) as mesh:
        yield mesh


@pytest_asyncio.fixture(loop_scope="session")
async def mesh(shared_mesh: Mesh) -> AsyncIterator[Mesh]:
    """The shared mesh, which this test leaves empty; and served as before, whatever it killed or restarted."""
    before = _processes(shared_mesh)
    yield shared_mesh
    if _processes(shared_mesh) != before:
        await until_heard(shared_mesh)
    await assert_free(shared_mesh, _FREE_WITHIN_S)


def _processes(mesh: Mesh) -> list[tuple[int, bool]]:
    return [(mesh.pid(service), mesh.alive(service)) for service in mesh.ids]
