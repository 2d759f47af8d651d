"""From the two settings to whose requests may share an embedding."""

import pytest

from headrace.mesh.config import Settings
from services.queue_manager.wiring import _encoder_sharing


@pytest.mark.parametrize(
    ("environment", "sharing"),
    [
        ({}, "tenant"),
        ({"HEADRACE_ENCODER_CACHE_SHARED": "on"}, "all"),
        ({"HEADRACE_ENCODER_CACHE_MB": "0"}, "off"),
        ({"HEADRACE_ENCODER_CACHE_MB": "0", "HEADRACE_ENCODER_CACHE_SHARED": "on"}, "off"),
    ],
    ids=["by default each tenant for itself", "shared", "no cache", "no cache to share"],
)
def test_who_shares(environment: dict[str, str], sharing: str) -> None:
    assert _encoder_sharing(Settings.from_env(environment)) == sharing
