"""`headrace queue`: the virtual queues of the running mesh, group by group; or why one request waits."""

import argparse
import asyncio
from collections.abc import Iterable

import grpc

from headrace.cli import runstate
from headrace.cli.options import add_data_dir
from headrace.cli.view import Console
from headrace.client import operator
from headrace.v1.queue_pb2 import ExplainResponse, GroupStatus, InspectResponse, VirtualQueueStatus

GROUPS_MAX = 20  # of each queue: a screen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_dir(parser)
    parser.add_argument("request", nargs="?", default="", help="a request's id: say why it waits, and how long it will")
    parser.add_argument("--groups", type=int, default=GROUPS_MAX, help="of each virtual queue, at most")


def run(args: argparse.Namespace) -> int:
    console = Console()
    state = runstate.read(args.data_dir)
    if state is None:
        console.plain(runstate.NO_MESH)
        return 1
    runstate.enter(state)
    return asyncio.run(_ask(console, state.services["qm-0"], args.request, args.groups))


async def _ask(console: Console, address: str, request: str, groups: int) -> int:
    try:
        if request:
            _explained(console, await operator.explain(address, request))
        else:
            _inspected(console, await operator.inspect(address, groups))
    except grpc.RpcError as error:
        console.error(f"the queue manager does not answer: {error}")
        return 1
    return 0


def _explained(console: Console, told: ExplainResponse) -> None:
    place = f"group {told.group} of {told.virtual_queue or 'no worker'}, " if told.group else ""
    console.plain(f"{told.request_id}: {told.state}. {told.why}")
    console.plain(f"{place}{told.position} before it; it has waited {told.waited_s:.1f} s")
    if told.estimated_wait_s >= 0:
        expected = f"{_seconds(told.estimated_wait_s)} more, in nine cases of ten at most "
        console.plain(f"expected to wait {expected}{_seconds(told.estimated_wait_bound_s)}")
    if told.predicted_tokens >= 0:
        most = f"90 % below {told.predicted_tokens_p90:.0f}"
        console.plain(f"its answer: about {told.predicted_tokens:.0f} tokens, {most}")
    if told.worker:
        console.plain(f"at {told.worker}, attempt {told.attempt}")


def _inspected(console: Console, shown: InspectResponse) -> None:
    console.plain(f"policy {shown.policy}, led by {shown.leader}")
    for queue in shown.queues:
        rate = f", {queue.tokens_per_s:.0f} tokens/s when full" if queue.tokens_per_s >= 0 else ""
        model = f"{queue.model}, loading {queue.loading}" if queue.loading else queue.model
        title = f"{queue.worker}: {model}; {queue.running} of {queue.slots} slots taken{rate}{_governed(queue)}"
        _groups(console, title, queue.groups)
    if shown.unplaced:
        _groups(console, "no live worker can serve these", shown.unplaced)
    _table(console, "operations", ("", "times"), sorted((name, str(count)) for name, count in shown.operations.items()))
    flows = [(flow.slo_class, flow.flow, str(flow.waiting), f"{flow.served_tokens:.0f}") for flow in shown.flows]
    _table(console, "shares", ("class", "tenant or flow", "waiting", "tokens of late"), flows)
    errors = [
        (
            f"{row.ahead_from}+",
            str(row.requests),
            _seconds(row.median_s),
            _seconds(row.p90_s),
            f"{row.within_bound:.0%}",
        )
        for row in shown.wait_errors
    ]
    columns = ("requests ahead", "measured", "median error", "90 % below", "within the bound")
    _table(console, "how far off expected waits were", columns, errors)
    planner = shown.planner
    if planner.plans_solved:
        proven = ", proven best" if planner.last_optimal else ""
        plans = f"{planner.plans_solved} plans solved, {planner.plans_applied} applied, {planner.plans_stale} too late"
        console.plain(f"\n{plans}; the last took {planner.last_solve_s:.2f} s ({planner.last_solver}{proven})")


def _governed(queue: VirtualQueueStatus) -> str:
    """What the governor asks, where it asks for something; an older queue manager says nothing of it."""
    told = []
    if 0 < queue.prefill_speed < 1 or 0 < queue.decode_speed < 1:
        told.append(f"prefill at {queue.prefill_speed:.0%}, decode at {queue.decode_speed:.0%} of full speed")
    if queue.prefill_speed and queue.slots_usable < queue.slots:
        told.append(f"{queue.slots_usable} slots may be used")
    if queue.prefill_speed and queue.weight < 1:
        told.append(f"weight {queue.weight:.2g}")
    return f"; governed: {', '.join(told)}" if told else ""


def _groups(console: Console, title: str, groups: Iterable[GroupStatus]) -> None:
    rows = [
        (
            str(group.id),
            group.model,
            group.slo_class + (f" {group.priority:+d}" if group.priority else ""),
            group.size,
            f"{group.waiting}" + (" evicted" if group.evicted else ""),
            _due(group.due_in_s),
            _wait(group),
        )
        for group in groups
    ]
    columns = ("group", "model", "class", "each", "waiting", "first token due", "expected")
    if rows:
        _table(console, title, columns, rows)
    else:
        console.plain(f"\n{title}\n  nobody waits")


def _wait(group: GroupStatus) -> str:
    if group.estimated_wait_s < 0:
        return "-"
    return f"in {_seconds(group.estimated_wait_s)} ({_seconds(group.estimated_wait_bound_s)})"


def _due(due_in_s: float) -> str:
    return f"in {_seconds(due_in_s)}" if due_in_s >= 0 else f"{_seconds(-due_in_s)} ago"


def _seconds(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _table(console: Console, title: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    listed = [list(row) for row in rows]
    if listed:
        console.table(title, columns, listed)
