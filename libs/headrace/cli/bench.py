"""`headrace bench NAME`: runs main(argv) of loadtest/benches/<name>.py in a checkout."""

import argparse
import importlib
import sys
from pathlib import Path

from headrace.cli.view import Console

_BENCHES = Path(__file__).resolve().parents[3] / "loadtest" / "benches"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=_names(), help="; further options are the bench's own")


def run(args: argparse.Namespace) -> int:
    sys.path.insert(0, str(_BENCHES.parents[1]))
    module = importlib.import_module(f"loadtest.benches.{args.name.replace('-', '_')}")
    return int(module.main(args.rest) or 0)


def _names() -> list[str]:
    """Files of the folder that have a main; benches are part of a checkout, not of the installed package."""
    if not _BENCHES.is_dir():
        Console().error("benches need a checkout of the repository: loadtest/benches was not found")
        return []
    files = [path for path in _BENCHES.glob("*.py") if "\ndef main(" in path.read_text()]
    return sorted(path.stem.replace("_", "-") for path in files)
