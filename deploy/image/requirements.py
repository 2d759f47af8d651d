"""Prints what the image installs: the pinned requirements of one extra of pyproject.toml, one a line.

The servers that are embedded for machines without containers (extra `embedded`) are left out.
"""

import argparse
import re
import tomllib
from pathlib import Path

_OWN_EXTRAS = re.compile(r"headrace\[([\w,-]+)\]")
# NATS and Redis have containers of their own.
_LEFT_OUT = frozenset({"embedded"})


def requirements(pyproject: Path, extra: str) -> list[str]:
    """The client's own requirements and those of the extra, with `headrace[...]` spelled out."""
    project = tomllib.loads(pyproject.read_text())["project"]
    return [*project["dependencies"], *_of_extra(project["optional-dependencies"], extra)]


def _of_extra(extras: dict[str, list[str]], name: str) -> list[str]:
    found: list[str] = []
    for line in extras[name]:
        own = _OWN_EXTRAS.fullmatch(line)
        if own is None:
            found.append(line)
            continue
        for inner in own[1].split(","):
            found += _of_extra(extras, inner) if inner not in _LEFT_OUT else []
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extra")
    parser.add_argument("--pyproject", type=Path, default=Path("pyproject.toml"))
    arguments = parser.parse_args()
    print("\n".join(requirements(arguments.pyproject, arguments.extra)))
