"""What `headrace top` draws: the console's state as tables and bars. Pure: a state and the time in, a picture out."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

State = Mapping[str, Any]

COLOURS = ("blue", "yellow", "green", "magenta", "cyan", "red")  # of SLO classes, in their order
WORKERS_MAX = 24  # rows: beyond it the fullest are shown
GROUPS_MAX = 14  # of a queue: a line
BAR = 12
WIDE = 116  # columns that everything takes
OVER = 1.01  # of a limit: what a reading may be off by


def picture(state: State, now_s: float, columns: int = 140) -> Group:
    """columns: of the terminal; what matters less is left out of a narrow one."""
    wide = columns >= WIDE
    parts = [_head(state)]
    trouble = "; ".join(state["trouble"].values())
    if trouble:
        parts.append(Text(trouble, style="bold red"))
    shown: list[Any] = [*parts, _classes(state, wide), _workers(state, wide)]
    if state["queues"]:
        shown.append(_queues(state, now_s))
    if state["rows"]:
        shown.append(_rows(state))
    return Group(*_spaced(shown))


def _spaced(parts: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for part in parts:
        if found and isinstance(part, Table):
            found.append(Text(""))
        found.append(part)
    return found


def _head(state: State) -> Text:
    point = state["point"] or {}
    running, queued = (sum(one[what] for one in state["classes"]) for what in ("running", "queued"))
    words = [
        f"{state['gateway']}",
        f"{number(point.get('tokens_s'))} tokens/s",
        f"{number(point.get('accepted_s'))} requests/s",
        f"{running} running, {queued} waiting",
        f"first token {seconds(point.get('p50_s'))}, 99 % below {seconds(point.get('p99_s'))}",
        _power(point),
    ]
    return Text("  ".join(word for word in words if word), style="bold")


def _power(point: State) -> str:
    watts, limit = point.get("power_w"), point.get("limit_w")
    if watts is None:
        return ""
    return f"{watts:.0f}" + (f" of {limit:.0f}" if limit else "") + " W"


def _classes(state: State, wide: bool) -> Table:
    more = ("oldest", "a new one waits", "median") if wide else ()
    table = _table("class", "waiting", "running", *more, "target", "99 % below", "in time")
    for place, one in enumerate(state["classes"]):
        kept = one["kept"]
        table.add_row(
            Text(one["name"], style=COLOURS[place % len(COLOURS)]),
            str(one["queued"]),
            str(one["running"]),
            *((_oldest(one), seconds(one["wait_s"]), seconds(one["p50_s"])) if wide else ()),
            seconds(one["target_s"]),
            seconds(one["p99_s"]),
            Text(share(kept), style="" if kept is None or kept >= 0.95 else "yellow" if kept >= 0.8 else "red"),
        )
    return table


def _oldest(load: State) -> str:
    return seconds(load["oldest_s"]) if load["queued"] else "-"


def _workers(state: State, wide: bool) -> Table:
    more = ("", "KV", "tokens/s") if wide else ()
    table = _table("worker", "stages", "slots", *more, "power", "cap", "heat", "speed", "")
    fullest = sorted(state["workers"], key=lambda one: -_fill(one))[:WORKERS_MAX]
    names = {one["id"] for one in fullest}
    for one in state["workers"]:
        if one["id"] not in names:
            continue
        device: State = next(iter(one["devices"]), {})
        cap = device.get("cap_w")
        table.add_row(
            one["id"],
            "+".join(one["stages"]) + (f" (as {one['role']})" if one["role"] else ""),
            f"{one['used']}/{one['slots']}",
            *((bar(_fill(one)), _kept(one), number(one.get("tokens_s"))) if wide else ()),
            watts(device.get("power_w")),
            watts(cap) if cap else "-",
            f"{device['temp_c']:.0f} C" if device.get("temp_c") is not None else "-",
            share(device.get("speed")),
            _state_of(one),
        )
    left = len(state["workers"]) - len(fullest)
    if left > 0:
        table.add_row(f"and {left} more")
    return table


def _kept(worker: State) -> str:
    return share(worker["blocks_used"] / worker["blocks"]) if worker["blocks"] else "-"


def _fill(worker: State) -> float:
    """An encoder has no slots that last: what its device does counts."""
    if worker["stages"] == ["encode"]:
        device: State = next(iter(worker["devices"]), {})
        return float(device.get("busy") or 0.0)
    return worker["used"] / worker["slots"] if worker["slots"] else 0.0


def _state_of(worker: State) -> Text:
    if worker["silent"]:
        return Text("silent", style="red")
    if worker["loading"]:
        return Text(f"loading {worker['loading']}", style="yellow")
    if worker["draining"]:
        return Text("draining", style="yellow")
    return Text("spared" if worker["weight"] < 0.5 else "", style="yellow")


def _queues(state: State, now_s: float) -> Table:
    """Each group: how many wait, and how much sooner than due its first token is expected."""
    names = [one["name"] for one in state["classes"]]
    table = _table("queue", "slots", "groups, first to last: waiting and slack")
    groups = {one["id"]: one for one in state["groups"]}
    for queue in state["queues"]:
        line = Text()
        for group in [groups[each] for each in queue["groups"][:GROUPS_MAX]]:
            place = names.index(group["class"]) if group["class"] in names else -1
            line.append(f" {group['waiting']} {slack(group, now_s)} ", style=f"reverse {COLOURS[place % len(COLOURS)]}")
            line.append(" ")
        more = queue["more"] + max(0, len(queue["groups"]) - GROUPS_MAX)
        if more:
            line.append(f"and {more} more")
        table.add_row(
            queue["worker"], f"{queue['running']}/{queue['usable'] or queue['slots']}", line or Text("nobody waits")
        )
    return table


def slack(group: State, now_s: float) -> str:
    """How much sooner than due its first token is expected; one that should have come by now is expected any moment."""
    if group["begin_s"] is None:
        return "?"
    left_s = group["due_s"] - max(now_s, group["begin_s"])
    return f"{'-' if left_s < 0 else '+'}{seconds(abs(left_s))}"


def _rows(state: State) -> Table:
    table = _table(f"row ({state['mode']})", "draws", "limit", "", "least", "emergency")
    for row in state["rows"]:
        limit, power = row["limit_w"], row["power_w"] or 0.0
        over = limit is not None and power > OVER * limit
        table.add_row(
            row["row"],
            Text(watts(row["power_w"]), style="red" if over else ""),
            watts(limit) if limit else "none",
            bar(power / limit if limit else 0.0),
            watts(row["least_w"]),
            Text(", ".join(row["emergencies"]), style="red"),
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", expand=False)
    for place, name in enumerate(columns):
        numbers = place > 0 and name not in ("", "stages", "emergency") and not name.startswith("groups")
        table.add_column(name, justify="right" if numbers else "left", no_wrap=True)
    return table


def bar(filled: float) -> str:
    cells = round(max(0.0, min(1.0, filled)) * BAR)
    return "█" * cells + "░" * (BAR - cells)


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def seconds(value: float | None) -> str:
    if value is None:
        return "-"
    if value < 0.9995:
        return f"{value * 1e3:.0f} ms"
    return f"{value:.1f} s" if value < 100 else f"{value / 60:.1f} min" if value < 6000 else f"{value / 3600:.1f} h"


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def watts(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} W"
