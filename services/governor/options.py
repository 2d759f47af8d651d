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
BudgetPolicy = Literal["central", "equal", "game"]
GAP_MOST = 0.1  # [I] of a player's work over a whole horizon: a published policy has a tenth of it


@dataclass(frozen=True, slots=True)
class Options:
    """Without a budget and with cool devices `enforce` caps nothing: it is the default."""

    mode: Mode = "enforce"  # or observe: caps are worked out and not sent; off
    rows: Rows = field(default_factory=one_row)  # a TOML file; without one all workers are one row
    thermal: str = DEFAULT  # a name of headrace.control.thermal
    audit_file: Path | None = None  # a JSON line for each action; none: the log alone
    learnt: Learnt = "off"  # a learnt thermal controller beside: shadow, or act behind the safety filter
    network: str = NETWORKS[0]  # which learnt one
    budget_policy: BudgetPolicy = "central"  # who says how a row is shared: central, equal, game
    policy_file: Path | None = None  # of budget_policy game: what `headrace governor learn-policy` wrote
    gap_most: float = GAP_MOST  # of game: who could gain more of its work by leaving suspends the row

    @staticmethod
    def from_env(env: Mapping[str, str]) -> "Options":
        mode = env.get("HEADRACE_GOVERNOR", "").strip().lower() or "enforce"
        if mode not in get_args(Mode):
            raise BadSetup(f"HEADRACE_GOVERNOR={mode!r}: must be one of {', '.join(get_args(Mode))}")
        thermal = env.get("HEADRACE_THERMAL", "").strip().lower() or DEFAULT
        if thermal not in CONTROLLERS:
            raise BadSetup(f"HEADRACE_THERMAL={thermal!r}: must be one of {', '.join(CONTROLLERS)}")
        path, budget = env.get("HEADRACE_ROWS", "").strip(), env.get("HEADRACE_ROW_BUDGET_W", "").strip()
        budget_w = _number("HEADRACE_ROW_BUDGET_W", budget or "0", "0 (none) or watts above 0")
        audit = env.get("HEADRACE_AUDIT_FILE", "").strip()
        return Options(
            "off" if mode == "off" else "observe" if mode == "observe" else "enforce",
            read_rows(path, budget_w) if path else one_row(budget_w),
            thermal,
            Path(audit).expanduser() if audit else None,
            _learnt(env.get("HEADRACE_THERMAL_LEARNT", "").strip().lower(), thermal),
            _network(env.get("HEADRACE_THERMAL_NETWORK", "").strip().lower()),
            *_budget_policy(env),
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


def _budget_policy(env: Mapping[str, str]) -> tuple[BudgetPolicy, Path | None, float]:
    """A policy's file is read later: one that cannot be is no reason to leave rows without a governor."""
    said = env.get("HEADRACE_BUDGET_POLICY", "").strip().lower() or "central"
    path, text = env.get("HEADRACE_BUDGET_POLICY_FILE", "").strip(), env.get("HEADRACE_BUDGET_POLICY_GAP", "").strip()
    for known in get_args(BudgetPolicy):
        if said == known:
            gap = _number("HEADRACE_BUDGET_POLICY_GAP", text, "a number, 0 or above") if text else GAP_MOST
            return known, Path(path).expanduser() if path else None, gap
    raise BadSetup(f"HEADRACE_BUDGET_POLICY={said!r}: must be one of {', '.join(get_args(BudgetPolicy))}")


def _number(variable: str, text: str, must: str) -> float:
    """0 or above."""
    try:
        found = float(text)
    except ValueError:
        raise BadSetup(f"{variable}={text!r}: not a number") from None
    if not math.isfinite(found) or found < 0.0:
        raise BadSetup(f"{variable}={text!r}: must be {must}")
    return found
