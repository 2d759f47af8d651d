"""The gateway's own fixtures: the SDK is tested against a real gateway."""

from tests.gateway.conftest import cell, edge, edges

__all__ = ["cell", "edge", "edges"]
