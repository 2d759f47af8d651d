"""What every figure carries besides itself: machine, date, commit, seeds, command.

Benches and simulations print the same head, so that two JSON objects can be told apart a year later.
"""

import datetime
import math
import os
import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where figures come from; `commit` is empty outside a checkout."""

    machine: str
    date: str  # UTC, as 2026-11-28
    commit: str
    seeds: tuple[int, ...]
    command: str

    def head(self) -> dict[str, Any]:
        """The five keys that every JSON object of ours carries."""
        return {
            "machine": self.machine,
            "date": self.date,
            "commit": self.commit,
            "seeds": list(self.seeds),
            "command": self.command,
        }


def provenance(words: Sequence[str], seeds: Sequence[int]) -> Provenance:
    """Of what runs here and now; `words` are those of the command line, from `headrace` on."""
    return Provenance(machine(), today(), commit(), tuple(seeds), shlex.join(words))


def today() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")


def machine() -> str:
    """Processor, cores and memory in one line."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in _read("/proc/cpuinfo").splitlines()
            if line.startswith("model name")
        ),
        platform.processor() or platform.machine(),
    )
    total_kib = next(
        (int(line.split()[1]) for line in _read("/proc/meminfo").splitlines() if line.startswith("MemTotal")), 0
    )
    return f"{model}, {os.cpu_count()} cores, {total_kib / 2**20:.0f} GiB, Python {platform.python_version()}"


def commit(root: Path = _ROOT) -> str:
    """The checked-out commit, with a + where the tree differs from it; empty outside a checkout or without git."""
    if not (root / ".git").exists():  # an installed package may lie inside somebody else's repository
        return ""
    head = _git(root, "rev-parse", "--short", "HEAD")
    return head + ("+" if head and _git(root, "status", "--porcelain", "-uno") else "")


def plain(value: Any) -> Any:
    """`value` as JSON can say it: what is not a finite number becomes null, numpy's numbers Python's own."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def _git(root: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False, timeout=30)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
