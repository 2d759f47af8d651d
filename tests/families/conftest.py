"""Checkpoints of the architectures, built once a session, with their encoders exported into a cache of their own."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from headrace.engines.families.directory import export_encoders
from tests.checkpoints import build
from tests.families import reference
from tests.families.served import Served


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where encoders of this session lie; workers of the tests find them there."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_CACHE_DIR", str(folder))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Callable[[str], Path]:
    """An architecture's name -> its directory."""
    reference.quiet()
    parent = tmp_path_factory.mktemp("checkpoints")
    return cache(lambda kind: build(kind, parent))


@pytest.fixture(scope="session")
def exported(checkpoint: Callable[[str], Path], cache_dir: Path) -> Callable[[str], Path]:
    """The same, its encoders exported."""

    @cache
    def of(kind: str) -> Path:
        path = checkpoint(kind)
        export_encoders(path, cache_dir)
        return path

    return of


@pytest.fixture(scope="module")
def network(served: Served) -> Any:
    """The reference's model of what a file's own fixture `served` serves."""
    return reference.model(served.path)


@pytest.fixture(scope="module")
def processor(served: Served) -> Any:
    return reference.processor(served.path)
