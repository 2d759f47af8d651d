"""`headrace governor`: rows, caps and their reasons; budgets and emergencies; the log of what was done."""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message

from headrace.cli import governor_policy, runstate
from headrace.cli.options import add_data_dir
from headrace.cli.view import Console
from headrace.client import operator
from headrace.v1.governor_pb2 import AuditEntry, DeviceReading, GetGovernorStateResponse, LearntState, RowState

ENTRIES = 20  # of the log: a screen
KINDS = ("ups", "ahu")
WHO = "headrace governor"  # in the audit log: whoever may run it on this machine
Lines = list[list[str]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_dir(parser)
    commands = parser.add_subparsers(dest="what", required=True)
    _command(commands.add_parser("status", help="rows, workers and devices: power, limits, caps and why"))
    budget = commands.add_parser("set-budget", help="the watts that a row may draw; 0: no budget")
    budget.add_argument("watts", type=float)
    budget.add_argument("--row", default="", help="every row unless one is named")
    _command(budget)
    emergency = commands.add_parser("emergency", help="ups: 75 %% of the power is left; ahu: 90 %% of the air")
    emergency.add_argument("kind", choices=KINDS)
    _command(emergency)
    clear = commands.add_parser("clear", help="an emergency is over")
    clear.add_argument("kind", choices=KINDS, nargs="?", help="all unless one is named")
    _command(clear)
    governor_policy.add_arguments(commands.add_parser("learn-policy", help="a budget policy from a trace, offline"))
    log = commands.add_parser("log", help="what the governor did, and why, newest last")
    log.add_argument("--entries", type=int, default=ENTRIES)
    _command(log)


def _command(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="the answer as one JSON object")
    # Before and after the command's name; without a default here, what stands before it holds.
    parser.add_argument("--data-dir", type=Path, default=argparse.SUPPRESS, help="of the running mesh")


def run(args: argparse.Namespace) -> int:
    if args.what == "learn-policy":
        return governor_policy.run(args)
    console = Console()
    state = runstate.read(args.data_dir)
    if state is None:
        console.plain(runstate.NO_MESH)
        return 1
    runstate.enter(state)
    address = state.services["governor-0"]
    calls: dict[str, Callable[[], Awaitable[Message]]] = {
        "status": lambda: operator.governor_state(address),
        "log": lambda: operator.governor_state(address),
        "set-budget": lambda: operator.set_budget(address, args.watts, args.row, WHO),
        "emergency": lambda: operator.declare_emergency(address, args.kind, WHO),
        "clear": lambda: operator.clear_emergency(address, args.kind or "", WHO),
    }
    return asyncio.run(_ask(console, args, calls[args.what]))


async def _ask(console: Console, args: argparse.Namespace, call: Callable[[], Awaitable[Message]]) -> int:
    try:
        answer = await call()
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            console.error(f"the governor does not answer: {error.details()}")
        else:
            console.error(str(error.details()))
        return 1
    if args.json:
        print(json.dumps(json_format.MessageToDict(answer, preserving_proto_field_name=True)))
    elif args.what == "log":
        assert isinstance(answer, GetGovernorStateResponse)
        log(console, list(answer.audit)[-max(1, args.entries) :])
    elif args.what == "status":
        assert isinstance(answer, GetGovernorStateResponse)
        status(console, answer)
    else:
        changed(console, answer.rows)  # type: ignore[attr-defined]
    return 0


def status(console: Console, state: GetGovernorStateResponse) -> None:
    hold = sorted({kind for row in state.rows for kind in row.emergencies})
    console.plain(f"the governor is in mode {state.mode}" + (f"; emergency: {', '.join(hold)}" if hold else ""))
    rows(console, state.rows)
    caps = {(worker.worker, cap.device): cap for worker in state.caps.workers for cap in worker.devices}
    lines: Lines = []
    why: dict[str, list[str]] = {}
    for worker in state.workers:
        for device in worker.samples[-1].devices if worker.samples else ():
            cap = caps.get((worker.worker, device.device))
            cap_w = "-" if cap is None or cap.cap_w <= 0 else f"{cap.cap_w:.0f} W"
            name = worker.worker if len(worker.samples[-1].devices) == 1 else f"{worker.worker} {device.device}"
            lines.append([name, *_device(device), cap_w, "silent" if worker.stale else ""])
            if cap is not None and cap.reason:
                why.setdefault(cap.reason, []).append(name)
    _table(console, "devices", ("", "draws", "at full speed", "heat", "busy", "speed", "cap", ""), lines)
    for reason, names in why.items():
        console.plain(f"  {reason} ({_some(names)})")
    _workers(console, state)
    stages = [
        [one.stage, _watts(one.budget_w), _watts(one.demand_w), f"{one.move:+d}" if one.move else ""]
        for one in state.caps.stages
    ]
    _table(console, "stages", ("", "budget", "at full speed", "instances"), stages)
    if state.HasField("learnt"):
        console.plain(learnt(state.learnt))
    for note in state.notes:
        console.note(note)


def rows(console: Console, states: Sequence[RowState]) -> None:
    lines = [
        [
            row.row,
            _watts(row.power_w),
            _watts(row.limit_w) if row.limit_w > 0 else "none",
            _watts(row.budget_w) if row.budget_w > 0 else "none",
            _watts(row.least_w),
            _air(row),
            str(len(row.workers)),
        ]
        for row in states
    ]
    _table(console, "rows", ("", "draws", "limit", "budget", "least", "air, m³/s", "workers"), lines)


def learnt(state: LearntState) -> str:
    """Of the learnt thermal controller, in a line."""
    head = f"learnt thermal controller: {state.network}, {state.mode}" + ("" if state.running else ", switched off")
    if not state.device_seconds:
        return f"{head}; nothing compared so far"
    apart = f"{state.mean_apart:.3f} from the safe speed on average, at most {state.worst_apart:.2f}"
    rest = f"{state.above_share:.1%} above it, {state.distrusted} not believed, {state.late} late"
    return f"{head}; {state.device_seconds} speeds: {apart}; {rest}; {state.step_ms:.1f} ms"


def changed(console: Console, states: Sequence[RowState]) -> None:
    """What a command has led to."""
    rows(console, states)
    for row in states:
        if 0 < row.limit_w < row.least_w:
            console.plain(f"  {row.row}: caps alone cannot keep {row.limit_w:.0f} W; fewer requests are admitted")


def log(console: Console, entries: Sequence[AuditEntry]) -> None:
    for entry in entries:
        at = time.strftime("%H:%M:%S", time.localtime(entry.at_s))
        change = f": {entry.before:.4g} to {entry.after:.4g}" if entry.before != entry.after else ""
        who = f"; {entry.who}" if entry.who else ""
        console.plain(f"{at}  {entry.action:<9} {entry.subject}{change} ({entry.reason}{who})")
    if not entries:
        console.plain("the governor has done nothing so far")


def _workers(console: Console, state: GetGovernorStateResponse) -> None:
    """Whose requests are to notice something."""
    serves = {worker.worker: worker.samples[-1].stages for worker in state.workers if worker.samples}
    lines = []
    for one in state.caps.workers:
        speeds = {"prefill": one.prefill_factor, "decode": one.decode_factor, "encode": one.encode_factor}
        shown = [f"{speed:.0%}" if stage in serves.get(one.worker, ()) else "-" for stage, speed in speeds.items()]
        lines.append([one.worker, *shown, f"{one.weight:.2f}", f"{one.slots_share:.0%}"])
    _table(console, "expected speeds", ("", "prefill", "decode", "encode", "weight", "slots"), lines)


def _device(device: DeviceReading) -> list[str]:
    return [
        _watts(device.power_w),
        _watts(device.full_w) if device.full_w > 0 else "-",
        f"{device.temp_c:.0f} °C" if device.temp_c >= 0 else "-",
        f"{device.busy:.0%}" if device.full_w > 0 and device.busy >= 0 else "-",
        f"{device.speed:.0%}" if device.speed > 0 else "-",
    ]


def _watts(watts: float) -> str:
    return f"{watts:.0f} W" if watts >= 0 else "-"


def _air(row: RowState) -> str:
    needs = f"{row.air_m3s:.2f}" if row.air_m3s >= 0 else "-"
    return f"{needs} of {row.air_limit_m3s:.2f}" if row.air_limit_m3s > 0 else needs


def _some(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _table(console: Console, title: str, columns: tuple[str, ...], lines: Lines) -> None:
    if lines:
        console.table(title, columns, lines)
