"""Tests of the proxy model need its text encoder's package; those of the heads also heads that were trained here."""

from importlib import metadata

import pytest

from headrace.predictor.encoder import PACKAGE
from headrace.predictor.heads import HEADS_FILE, assets

_NEEDS_ENCODER = ("test_length_encoder.py", "test_length_proxy.py")
_NEEDS_HEADS = ("test_length_proxy.py",)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name != "lengths":
            continue
        if item.path.name in _NEEDS_ENCODER and not _installed():
            item.add_marker(pytest.mark.skip(reason=f"the package {PACKAGE} is not installed (docs/lengths.md)"))
        if item.path.name in _NEEDS_HEADS and not (assets() / HEADS_FILE).is_file():
            item.add_marker(pytest.mark.skip(reason="no heads have been trained here (docs/lengths.md)"))


def _installed() -> bool:
    try:
        metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        return False
    return True
