"""What the code says of a dataclass' fields: the comments beside and above them are their documentation."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Told:
    name: str
    type: str  # as the code writes it
    default: str  # "" where the field has none
    meaning: str


def told(cls: type) -> Iterator[Told]:
    """Each field of a dataclass, in order; inherited ones are not looked for."""
    text = textwrap.dedent(inspect.getsource(cls))
    lines = text.splitlines()
    body = ast.parse(text).body[0].body
    defaults = {entry.name: _default(entry) for entry in fields(cls)}
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
            yield Told(name, ast.unparse(node.annotation), defaults[name], _comment(lines, node))


def _comment(lines: list[str], node: ast.AnnAssign) -> str:
    """Lines of comment right above, then what stands behind the field."""
    above, at = [], node.lineno - 2
    while at >= 0 and lines[at].lstrip().startswith("#"):
        above.insert(0, lines[at].strip().lstrip("# "))
        at -= 1
    _, mark, behind = lines[node.end_lineno - 1][node.end_col_offset :].partition("#")
    return " ".join([*above, behind.strip()] if mark else above)


def _default(entry: Any) -> str:
    if entry.default_factory is not MISSING:
        value = entry.default_factory()
        return "" if value or value == 0 else repr(value)
    return "" if entry.default is MISSING else shown(entry.default)


def shown(value: Any) -> str:
    """A default as somebody would write it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(str(each) for each in value)
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, int) and value >= 1 << 20 and value % (1 << 20) == 0:
        return f"{value} ({value >> 20} MiB)" if value % (1 << 30) else f"{value} ({value >> 30} GiB)"
    return "" if value is None else str(value)
