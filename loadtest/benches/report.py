"""What every bench's JSON carries besides its figures: machine, date, commit, seeds, command.

Progress and tables go to standard error, so that the last line of standard output is the one JSON object.
"""

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any


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


def commit() -> str:
    """The checked-out commit, with a + where the tree differs from it; empty outside a checkout."""
    root = Path(__file__).parents[2]
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=False
    )
    dirty = subprocess.run(
        ["git", "status", "--porcelain", "-uno"], cwd=root, capture_output=True, text=True, check=False
    )
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def finish(name: str, argv: list[str], seeds: list[int], figures: dict[str, Any]) -> None:
    """Print the one JSON object."""
    head = {
        "bench": name,
        "machine": machine(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "seeds": seeds,
        "command": shlex.join(["headrace", "bench", name, *argv]),
    }
    print(json.dumps(head | figures), flush=True)


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie (nearest rank); nan for none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
