"""The reference pages, each generated from what it describes: page name -> Markdown."""

from collections.abc import Callable
from pathlib import Path

from reference import commands, endpoints, metrics, protos, settings, toml_files
from reference.endpoints import openapi

__all__ = ["openapi", "pages"]

_PAGES: dict[str, Callable[[Path], str]] = {
    "http": endpoints.page,
    "grpc": protos.page,
    "cli": commands.page,
    "settings": settings.page,
    "toml": toml_files.page,
    "metrics": metrics.page,
}


def pages(root: Path) -> dict[str, str]:
    return {name: page(root) for name, page in _PAGES.items()}
