"""The part of the house style that a machine can keep.

Each rule is one function from a file to complaints, so a failure reads as a list of places.
"""

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70

# Where a broad catch is right: the boundary of a process or of a task that must not take the process along.
BROAD_CATCHES: dict[str, str] = {
    "libs/headrace/mesh/bus.py": "an answer to another process: its failure is logged, the asker's time-out tells",
    "libs/headrace/mesh/nats_wire.py": "a message of another process: one bad one must not end the connection",
}
# Words that say that work is unfinished; the brackets keep this file from holding them itself.
UNFINISHED = re.compile(r"TOD[O]|FIXM[E]|XX[X]|\bHAC[K]\b|for no[w]\b|simplifie[d]|NotImplementedErro[r]")
MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:home|root|work|Users)/\w")
REGISTRY_HOSTS = re.compile(r"pypi[.]org|files[.]pythonhosted|download[.]pytorch|registry[.]npmjs", re.IGNORECASE)
TEXT_SUFFIXES = {".py", ".ts", ".sh", ".md", ".toml", ".yaml", ".yml", ".proto", ".txt", ".json", ""}
# Generated, or not ours to word.
SKIPPED = (
    "libs/headrace/v1/",
    "libs/headrace/oip/",
    "clients/typescript/src/gen/",
    "LICENSE",
    "deploy/setup/constraints.txt",
)


def tracked() -> list[Path]:
    """Files of the repository and those about to join it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    paths = [ROOT / line for line in done.stdout.splitlines() if not line.startswith(SKIPPED)]
    return [path for path in paths if path.is_file() and path.suffix in TEXT_SUFFIXES]


def python_files() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".py"]


Complaints = Iterator[tuple[int, str]]


def too_long(path: Path, tree: ast.Module) -> Complaints:
    lines = len(path.read_text().splitlines())
    if lines > FILE_LINES_MAX:
        yield lines, f"the file has {lines} lines, {FILE_LINES_MAX} are allowed"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                yield node.lineno, f"{node.name} has {length} lines, {FUNCTION_LINES_MAX} are allowed"


def undocumented(path: Path, tree: ast.Module) -> Complaints:
    if tree.body and not ast.get_docstring(tree):
        yield 1, "the file does not say what it is for"


def broad_catch(path: Path, tree: ast.Module) -> Complaints:
    name = path.relative_to(ROOT).as_posix()
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and _is_broad(node) and name not in BROAD_CATCHES:
            yield node.lineno, "a broad catch outside the boundaries that BROAD_CATCHES lists"


def _is_broad(handler: ast.ExceptHandler) -> bool:
    """Catching everything to put it back up again is no catch."""
    reraises = bool(handler.body) and any(isinstance(node, ast.Raise) and node.exc is None for node in handler.body)
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    broad = any(
        kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException")) for kind in kinds
    )
    return broad and not reraises


def unspecific_name(path: Path, tree: ast.Module) -> Complaints:
    if path.stem in ("utils", "helpers", "misc", "common_utils"):
        yield 1, "a file named for nothing in particular"


def matches(pattern: re.Pattern[str], what: str) -> Callable[[Path], Complaints]:
    def rule(path: Path) -> Complaints:
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if found := pattern.search(line):
                yield number, f"{what}: {found.group(0)!r}"

    return rule


TREE_RULES = [too_long, undocumented, broad_catch, unspecific_name]
TEXT_RULES = {
    "unfinished": matches(UNFINISHED, "unfinished work"),
    "machine_path": matches(MACHINE_PATHS, "a path of somebody's machine"),
    "registry_host": matches(REGISTRY_HOSTS, "a package host"),
}


def test_python_files() -> None:
    """All rules in one go: reading a thousand files as Python takes seconds."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in python_files()
        for tree in [ast.parse(path.read_text())]
        for rule in TREE_RULES
        for line, text in rule(path, tree)
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("rule", TEXT_RULES.values(), ids=TEXT_RULES.keys())
def test_text_files(rule: Callable[[Path], Complaints]) -> None:
    found = [f"{path.relative_to(ROOT)}:{line}: {text}" for path in tracked() for line, text in rule(path)]
    assert not found, "\n" + "\n".join(found)


def test_allowed_broad_catches_are_still_there() -> None:
    """An entry whose catch is gone must go too."""
    for name in BROAD_CATCHES:
        tree = ast.parse((ROOT / name).read_text())
        assert any(isinstance(node, ast.ExceptHandler) and _is_broad(node) for node in ast.walk(tree)), name


def test_the_rules_see_what_they_are_for(tmp_path: Path) -> None:
    """Each rule is shown a file that breaks it."""
    bad = "def f():\n" + "    x = 1\n" * FILE_LINES_MAX + "try:\n    f()\nexcept Exception:\n    pass\n"
    path = tmp_path / "utils.py"
    path.write_text(bad)
    tree = ast.parse(bad)
    assert len(list(too_long(path, tree))) == 2
    assert list(undocumented(path, tree))
    assert list(unspecific_name(path, tree))
    assert any(_is_broad(node) for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler))
