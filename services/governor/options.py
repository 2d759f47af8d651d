"""The governor's own settings, from HEADRACE_*; a bad value names its variable."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast, get_args

from headrace.control.thermal import CONTROLLERS, DEFAULT
from headrace.control.thermal.network import NETWORKS
from headrace.mesh.errors import BadSetup
from services.governor.beside import Mode as Learnt
from services.governor.rows import Rows, one_row, read_rows

Mode = Literal["off", "observe", "enforce"]


@dataclass(frozen=True, slots=True)
class Options:
    """Without a budget and with cool devices `enforce` caps nothing: it is the default."""

    mode: Mode = "enforce"
    rows: Rows = field(default_factory=one_row)
    thermal: str = DEFAULT
    audit_file: Path | None = None
    learnt: Learnt = "off"
    network: str = NETWORKS[0]

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
            _learnt(env.get("HEADRACE_THERMAL_LEARNT", "").strip().lower(), thermal),
            _network(env.get("HEADRACE_THERMAL_NETWORK", "").strip().lower()),
        )


def _learnt(word: str, thermal: str) -> Learnt:
    for known in get_args(Learnt):
        if (word or "off") == known:
            if known == "act" and thermal != DEFAULT:
                raise BadSetup(f"HEADRACE_THERMAL_LEARNT='act': only below HEADRACE_THERMAL={DEFAULT}, not {thermal}")
            return cast(Learnt, known)
    raise BadSetup(f"HEADRACE_THERMAL_LEARNT={word!r}: must be one of {', '.join(get_args(Learnt))}")


def _network(word: str) -> str:
    if word and word not in NETWORKS:
        raise BadSetup(f"HEADRACE_THERMAL_NETWORK={word!r}: must be one of {', '.join(NETWORKS)}")
    return word or NETWORKS[0]


def _watts(text: str) -> float:
    try:
        watts = float(text or 0.0)
    except ValueError:
        raise BadSetup(f"HEADRACE_ROW_BUDGET_W={text!r}: not a number") from None
    if not math.isfinite(watts) or watts < 0.0:
        raise BadSetup(f"HEADRACE_ROW_BUDGET_W={text!r}: must be 0 (none) or watts above 0")
    return watts
