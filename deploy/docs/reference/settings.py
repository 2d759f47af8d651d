"""Settings: every HEADRACE_* variable, from the classes that read them."""

import platform
import re
from collections.abc import Iterator
from pathlib import Path

from headrace.mesh.config import Settings
from reference.fields import Told, told
from reference.words import cell, code, table
from services.governor.options import Options as Governor
from services.queue_manager.scaling_options import ScalingOptions
from services.queue_manager.wiring import Options as QueueManager

Rows = list[tuple[str, str, str]]  # variable, default, meaning
# Fields whose variable is not HEADRACE_ and their name; None: no variable of its own.
_QUEUE: dict[str, str | None] = {"id": None, "settings": None, "scaling": None}
_SCALING = {"policy": "AUTOSCALE", "way": "AUTOSCALE_VIA", "most": "AUTOSCALE_INSTANCES"}
_SCALING |= {name: f"AUTOSCALE_{name.upper()}" for name in ("pools", "look_s", "epoch_s", "start_s")}
_GOVERNOR = {
    "mode": "GOVERNOR",
    "learnt": "THERMAL_LEARNT",
    "network": "THERMAL_NETWORK",
    "gap_most": "BUDGET_POLICY_GAP",
}
_GOVERNOR |= {"policy_file": "BUDGET_POLICY_FILE"}
_CHOICE = re.compile(r"#(\w+)=(.*)")
# Read where they are used, by what has no settings of its own.
_BESIDE: dict[str, Rows] = {
    "Whoever asks: `headrace chat`, `status`, `top`, the SDK": [
        ("HEADRACE_API_KEY", "", "the key that is sent"),
        ("HEADRACE_TLS_CA, HEADRACE_TLS_CERT, HEADRACE_TLS_KEY", "", "PEM files, as for services"),
    ],
    "A process that computes": [
        ("HEADRACE_CACHE_DIR", "the user's cache directory", "graphs and exported encoders that are built once"),
        ("HEADRACE_TORCH_DTYPE", "bfloat16 on a GPU, float32 on a CPU", "of the torch engine's weights"),
    ],
    "A door before many cells: `python -m services.gateway.cells`": [
        ("HEADRACE_CELLS_FILE", "", "TOML: a `[[cell]]` each, with `name` and `url` of its gateways"),
        ("HEADRACE_CELLS_SPREAD", "by-room", "or least-load, two-choices, least-wait, round-robin, random"),
    ],
    "Tests, benches and tools": [
        ("HEADRACE_HELM", "that of .venv-chart, or on PATH", "the helm that the chart's tests render with"),
        ("HEADRACE_FAULT", "", "where a process kills or stops itself: `prefill.first_token:2:kill`"),
        ("HEADRACE_READY_FILE", "", "written when a process is ready; set by the launcher"),
        ("HEADRACE_LOAD_SCENARIO, HEADRACE_LOAD_SEED, HEADRACE_LOAD_GRPC", "", "from `headrace load` to Locust"),
        ("HEADRACE_CHROMIUM", "chromium on PATH", "the browser that the console's bench and tests drive"),
    ],
}


def page(root: Path) -> str:
    parts = [
        "# Settings\n",
        "Every process reads its settings from the environment once, at its start; a value that cannot be is told by "
        "its variable's name. `headrace up` sets what its options say and hands the rest of its environment on to the "
        "processes that it starts. `compose.yaml` takes those that [.env.example](../../.env.example) lists.\n"
        "Times are in seconds, sizes in bytes unless the name says otherwise; flags are `on` or `off`; lists have "
        "commas.\n",
    ]
    of_containers = "Containers: `.env` beside `compose.yaml`"
    for title, rows in {**sections(), of_containers: _containers(root)}.items():
        parts.append(f"## {title}\n\n{table(('Variable', 'Default', 'Meaning'), map(_line, rows))}")
    return "\n".join(parts)


def sections() -> dict[str, Rows]:
    governor = list(_named(told(Governor), _GOVERNOR))
    governor.append(("HEADRACE_ROW_BUDGET_W", "0", "watts of each row that says none itself; 0: no budget"))
    return {
        "Every service": list(_named(told(Settings), {})),
        "The queue manager": list(_named(told(QueueManager), _QUEUE)),
        "The autoscaler, in the queue manager": list(_named(told(ScalingOptions), _SCALING)),
        "The governor": governor,
        **_BESIDE,
    }


def _containers(root: Path) -> Rows:
    """Of .env.example, what is no variable of a service: a default behind #NAME=, comments above."""
    rows: Rows = []
    above: list[str] = []
    for line in (root / ".env.example").read_text().splitlines():
        if found := _CHOICE.fullmatch(line):
            rows.append((found[1], found[2], " ".join(above)))
            above = []
        elif line.startswith("# ---"):
            above = [line.strip("# -")]
        else:
            above = [line.lstrip("# ")] if line else above
    return rows


def _named(fields: Iterator[Told], names: dict[str, str | None]) -> Iterator[tuple[str, str, str]]:
    for field in fields:
        name = names.get(field.name, field.name.upper())
        if name is not None:
            yield f"HEADRACE_{name}", field.default, field.meaning


def _line(row: tuple[str, str, str]) -> tuple[str, str, str]:
    names, default, meaning = row
    default = "this machine's name" if default == platform.node() else default
    return "<br>".join(code(name) for name in names.split(", ")), code(default) or "none", cell(meaning)
