"""The table of values in the chart's README, made from the comments of values.yaml; `--check` says whether it is so.

Run with a Python that has PyYAML: .venv-chart/bin/python deploy/helm/readme.py
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "headrace"
BEGIN, END = "<!-- values -->\n", "<!-- /values -->\n"
_KEY = re.compile(r"^( *)([A-Za-z]\w*):")


def told(text: str) -> Iterator[tuple[str, str]]:
    """Dotted keys of values.yaml and what the comment above each says."""
    path: list[str] = []
    words: list[str] = []
    for line in text.splitlines():
        if line.strip().startswith("# --"):
            words = [line.strip().removeprefix("# --").strip()]
        elif words and line.strip().startswith("#"):
            words.append(line.strip().removeprefix("#").strip())
        elif found := _KEY.match(line):
            depth = len(found[1]) // 2
            path = [*path[:depth], found[2]]
            if words:
                yield ".".join(path), " ".join(words)
            words = []


def leaves(values: Any, told_of: set[str], path: str = "") -> Iterator[tuple[str, Any]]:
    """Keys that need a word: all but those of a value that has one itself."""
    for key, value in values.items():
        name = f"{path}.{key}" if path else key
        if name in told_of or not isinstance(value, dict):
            yield name, value
        else:
            yield from leaves(value, told_of, name)


def table(text: str) -> str:
    words, values = dict(told(text)), yaml.safe_load(text)
    lines = ["| Value | Means | Default |", "|---|---|---|"]
    for name, value in leaves(values, set(words)):
        default = "as in values.yaml" if name == "pools" else f"`{json.dumps(value)}`"
        lines.append(f"| `{name}` | {words[name].replace('|', '/')} | {default} |")
    return "\n".join(lines) + "\n"


def written(readme: str, made: str) -> str:
    head, _, rest = readme.partition(BEGIN)
    return f"{head}{BEGIN}\n{made}\n{END}{rest.partition(END)[2]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where the README is another")
    path = CHART / "README.md"
    before = path.read_text()
    after = written(before, table((CHART / "values.yaml").read_text()))
    if parser.parse_args().check:
        return int(before != after)
    path.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
