"""What a checkout holds beside the installed package, one file a name: benches and reproductions of papers."""

import argparse
import importlib
import sys
from pathlib import Path

from headrace.cli.view import Console

_LOADTEST = Path(__file__).resolve().parents[3] / "loadtest"


def names(room: str) -> list[str]:
    """Files of the folder that have a main."""
    folder = _LOADTEST / room
    if not folder.is_dir():
        Console().error(f"this needs a checkout of the repository: loadtest/{room} was not found")
        return []
    files = [path for path in folder.glob("*.py") if "\ndef main(" in path.read_text()]
    return sorted(path.stem.replace("_", "-") for path in files)


def run(room: str, args: argparse.Namespace) -> int:
    """main(argv) of the file, with the options that are its own."""
    sys.path.insert(0, str(_LOADTEST.parent))
    module = importlib.import_module(f"loadtest.{room}.{args.name.replace('-', '_')}")
    return int(module.main(args.rest) or 0)
