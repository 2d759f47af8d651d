"""The governor's own settings, from HEADRACE_*; a bad value names its variable."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from headrace.control.thermal import CONTROLLERS, DEFAULT
from headrace.mesh.errors import BadSetup
from services.governor.rows import Rows, one_row, read_rows

Mode = Literal["off", "observe", "enforce"]


@dataclass(frozen=True, slots=True)
class Options:
    """Without a budget and with cool devices `enforce` caps nothing: it is the default."""

    mode: Mode = "enforce"
    rows: Rows = field(default_factory=one_row)
    thermal: str = DEFAULT
    audit_file: Path | None = None

    @staticmethod
    def from_env(env: Mapping[str, str]) -> "Options":
        mode = env.get("HEADRACE_GOVERNOR", "").strip().lower() or "enforce"
        if mode not in get_args(Mode):
            raise BadSetup(f"HEADRACE_GOVERNOR={mode!r}: must be one of {', '.join(get_args(Mode))}")
        thermal = env.get("HEADRACE_THERMAL", "").strip().lower() or DEFAULT
        if thermal not in CONTROLLERS:
            raise BadSetup(f"HEADRACE_THERMAL={thermal!r}: must be one of {', '.join(CONTROLLERS)}")
        path, budget_w = env.get("HEADRACE_ROWS", "").strip(), _watts(env.get("HEADRACE_ROW_BUDGET_W", "").strip())
        audit = env.get("HEADRACE_AUDIT_FILE", "").strip()
        return Options(
            "off" if mode == "off" else "observe" if mode == "observe" else "enforce",
            read_rows(path, budget_w) if path else one_row(budget_w),
            thermal,
            Path(audit).expanduser() if audit else None,
        )


def _watts(text: str) -> float:
    try:
        watts = float(text or 0.0)
    except ValueError:
        raise BadSetup(f"HEADRACE_ROW_BUDGET_W={text!r}: not a number") from None
    if not math.isfinite(watts) or watts < 0.0:
        raise BadSetup(f"HEADRACE_ROW_BUDGET_W={text!r}: must be 0 (none) or watts above 0")
    return watts
