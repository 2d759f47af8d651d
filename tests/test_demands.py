"""Every test that docs/demands.md names exists: a page that points at nothing proves nothing."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def defined(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def missing(text: str) -> list[str]:
    """Files that are not there, and tests that their files do not define."""
    found = []
    for file, test in NAMED.findall(text):
        path = ROOT / file
        if not path.is_file() or (test and test not in defined(path)):
            found.append(f"{file}::{test}")
    return found


def test_every_test_that_is_named_exists() -> None:
    page = (ROOT / "docs" / "demands.md").read_text()
    assert missing(page) == []
    rows = re.findall(r"^\| (\d+) \|.*\| (.*) \|$", page, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 27)), "one row a demand"
    assert all(NAMED.search(held) for _, held in rows), "each with a test"


def test_what_is_not_there_is_found() -> None:
    assert missing("`tests/test_demands.py::test_no_such`, `tests/none.py`") == [
        "tests/test_demands.py::test_no_such",
        "tests/none.py::",
    ]
