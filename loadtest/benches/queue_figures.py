"""From rows of runs to the report: means over seeds with 95 % intervals, and whether what is wanted holds.

The clairvoyant figure of a seed is the best schedule known for it: the search's, or a policy's where that kept more.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from headrace.report.compare import Estimate, estimate

Row = Mapping[str, Any]
Rows = Mapping[str, Mapping[int, Row]]  # by policy, by seed

# What is wanted of the planner (docs/figures.md).
OF_CLAIRVOYANT = 0.95
BELOW_POINTS = 1.0  # at most, of fcfs and of edf
GAIN_POINTS, GAIN_WHERE = 40.0, 0.55  # over fcfs, where that is under so much and the bound allows it
THROUGHPUT_GAIN = 1.5  # over edf, on W_B
PLAIN = ("requests", "throughput_rps", "utilisation", "swaps", "evictions", "plans", "planner_s")
BOUNDS = ("first_token", "complete", "unbroken")


def figures(rows: Rows) -> dict[str, Any]:
    """One cell of the report: {policy: figures}, `clairvoyant` and `bound` among them."""
    out = {policy: _policy(list(by_seed.values())) for policy, by_seed in rows.items() if policy != "clairvoyant"}
    searched = rows.get("clairvoyant", {})
    if searched:
        best = {seed: _best(rows, seed) for seed in searched}
        out["clairvoyant"] = _policy(list(best.values())) | {
            "searched": _plain(_over(searched, lambda row: row["attainment"])),
            "let_in": _plain(_over(searched, lambda row: row["let_in"])),
            "replays": _plain(_over(searched, lambda row: row["replays"])),
            "headrace": _plain(_same_seeds(rows.get("headrace", {}), searched)),
        }
        bounds = {name: _over(searched, partial(_bound, name)) for name in BOUNDS}
        out["bound"] = {
            "attainment": _plain(bounds["complete"]),
            "ci95": _half(bounds["complete"]),
            **{name: _plain(each) for name, each in bounds.items()},
        }
    return out


def _best(rows: Rows, seed: int) -> Row:
    known = [by_seed[seed] for by_seed in rows.values() if seed in by_seed]
    return max(known, key=lambda row: row["attainment"])


def _same_seeds(ours: Mapping[int, Row], searched: Mapping[int, Row]) -> Estimate:
    """Attainment on the seeds that were searched: there may be fewer of them."""
    return estimate([row["attainment"] for seed, row in ours.items() if seed in searched])


def _policy(rows: Sequence[Row]) -> dict[str, Any]:
    attained = estimate([row["attainment"] for row in rows])
    classes = {name: estimate([row["by_class"][name] for row in rows]) for name in rows[0]["by_class"]}
    return {
        "attainment": _plain(attained),
        "ci95": _half(attained),
        "by_class": {name: _plain(each) for name, each in classes.items()},
        **{name: _plain(estimate([float(row.get(name, "nan")) for row in rows])) for name in PLAIN},
        "throughput_ci95": _half(estimate([row["throughput_rps"] for row in rows])),
        "seeds": len(rows),
    }


def _bound(name: str, row: Row) -> float:
    return float(row["bounds"][name])


def _over(by_seed: Mapping[int, Row], value: Callable[[Row], float]) -> Estimate:
    return estimate([value(row) for row in by_seed.values()])


def _plain(each: Estimate) -> float | None:
    return round(each.mean, 5) if each.mean == each.mean else None


def _half(each: Estimate) -> float | None:
    return round(each.half, 5) if each.half == each.half else None


def verdicts(workload: str, cell: Mapping[str, Any]) -> dict[str, Any]:
    """What is wanted of the planner in a cell: the figure, and whether it holds; nothing of what was not run."""
    attained = {name: each["attainment"] for name, each in cell.items()}
    ours, out = attained.get("headrace"), dict[str, Any]()
    if ours is None:
        return out
    if "clairvoyant" in attained:
        alike = cell["clairvoyant"]["headrace"]
        ratio = alike / attained["clairvoyant"] if attained["clairvoyant"] else 1.0
        out["of_clairvoyant"] = {"value": round(ratio, 4), "holds": ratio >= OF_CLAIRVOYANT}
    for other in ("fcfs", "edf"):
        if other in attained:
            points = 100 * (ours - attained[other])
            out[f"over_{other}_points"] = {"value": round(points, 2), "holds": points >= -BELOW_POINTS}
    if "fcfs" in attained and "bound" in attained and attained["fcfs"] < GAIN_WHERE:
        allowed = 100 * (attained["bound"] - attained["fcfs"])
        if allowed >= GAIN_POINTS:
            points = 100 * (ours - attained["fcfs"])
            out["gain_where_fcfs_fails"] = {"value": round(points, 2), "holds": points >= GAIN_POINTS}
    if workload == "W_B" and "edf" in cell and cell["edf"]["throughput_rps"]:
        gain = cell["headrace"]["throughput_rps"] / cell["edf"]["throughput_rps"]
        out["throughput_over_edf"] = {"value": round(gain, 3), "holds": gain >= THROUGHPUT_GAIN}
    return out


HEAD = (
    f"{'':30} {'kept':>7} {'+-':>5} {'inter':>7} {'batch-1':>7} {'batch-2':>7} {'req/s':>7} {'busy':>6}"
    f" {'swaps':>7} {'evict':>7} {'plans':>7} {'ms each':>7}"
)


def table(workload: str, load: str, cell: Mapping[str, Any]) -> list[str]:
    """A cell as a reader wants it: policies down, the best bound last."""
    lines = [f"\n{workload} at {load} x saturation", HEAD]
    for policy, each in cell.items():
        if policy == "bound":
            continue
        kept = [each["attainment"], each["ci95"], *each["by_class"].values()]
        shares = "".join(f" {_percent(value):>{width}}" for value, width in zip(kept, (7, 5, 7, 7, 7), strict=False))
        counts = "".join(f" {_number(each[name]):>7}" for name in ("swaps", "evictions", "plans"))
        lines.append(
            f"{policy:30}{shares} {_number(each['throughput_rps']):>7} {_percent(each['utilisation']):>6}{counts}"
            f" {_number(_plan_ms(each)):>7}"
        )
    if "bound" in cell:
        told = ", ".join(f"{name.replace('_', ' ')} {_percent(cell['bound'][name])}" for name in BOUNDS)
        lines.append(f"{'no schedule keeps more than':30} {told}")
    for name, each in verdicts(workload, cell).items():
        lines.append(f"  {name}: {each['value']} {'holds' if each['holds'] else 'DOES NOT HOLD'}")
    return lines


def _plan_ms(each: Mapping[str, Any]) -> float | None:
    """Of the clock, for a plan."""
    return 1000 * each["planner_s"] / each["plans"] if each["plans"] and each["planner_s"] is not None else None


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"
