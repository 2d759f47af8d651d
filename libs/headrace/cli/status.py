"""`headrace status`: processes, queues, workers and devices of the running mesh, once."""

import argparse
import asyncio
import time

import grpc

from headrace.cli import runstate
from headrace.cli.options import add_data_dir
from headrace.cli.process import same_process
from headrace.cli.runstate import RunState
from headrace.cli.view import Console
from headrace.client import operator

DECISIONS_SHOWN = 5  # of the autoscaler, the last ones


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_dir(parser)


def run(args: argparse.Namespace) -> int:
    console = Console()
    state = runstate.read(args.data_dir)
    if state is None:
        console.plain(runstate.NO_MESH)
        return 1
    runstate.enter(state)
    console.plain(f"{state.state}" + (f", waiting for {', '.join(state.waiting_for)}" if state.waiting_for else ""))
    _processes(console, state)
    return asyncio.run(_ask(console, state))


def _processes(console: Console, state: RunState) -> None:
    rows = [
        [name, str(pid), "up" if same_process(pid, at) else "DOWN", state.services.get(name, ""), _age(at)]
        for name, (pid, at) in state.processes.items()
    ]
    console.table("processes", ("id", "pid", "", "gRPC", "up for"), rows)


async def _ask(console: Console, state: RunState) -> int:
    try:
        await _cell(console, state)
        await _pools(console, state)
        await _devices(console, state)
    except grpc.RpcError as error:
        console.error(f"a manager does not answer: {error}")
        return 1
    return 0


async def _pools(console: Console, state: RunState) -> None:
    """Where an autoscaler starts and drains workers: what it wants, and why."""
    scaling = await operator.scaling_status(state.services["qm-0"])
    if scaling is None:
        return
    rows = [
        [
            pool.pool,
            f"{pool.ready}" + f" +{pool.starting}" * bool(pool.starting) + f" -{pool.draining}" * bool(pool.draining),
            f"{pool.target} of {pool.least} to {pool.most}",
            f"{pool.load_per_s:.0f} of {pool.capacity_per_s:.0f}/s each",
            f"{pool.start_s:.1f} s",
            pool.reason,
        ]
        for pool in scaling.pools
    ]
    columns = ("pool", "workers", "target", "tokens", "start", "why")
    console.table(f"pools ({scaling.policy})", columns, rows)
    for made in list(scaling.decisions)[-DECISIONS_SHOWN:]:
        failed = f" FAILED: {made.error}" if made.error else ""
        console.note(f"{_age(made.at_s)} ago: {made.pool} {made.before} -> {made.after}: {made.reason}{failed}")
    if scaling.trouble:
        console.error(f"nothing can be scaled: {scaling.trouble}")


async def _cell(console: Console, state: RunState) -> None:
    cell = await operator.cell_status(state.services["qm-0"])
    rows = [
        [entry.slo_class, f"{entry.queued} of {entry.queue_limit}", str(entry.running), f"{entry.oldest_wait_s:.1f} s"]
        for entry in cell.classes
    ]
    console.table("queues", ("class", "queued", "running", "oldest waits"), rows)
    workers = [
        [
            entry.worker,
            ", ".join(entry.stages) + (f" (as {entry.role})" if entry.role else ""),
            entry.model,
            f"{entry.slots_used} of {entry.slots}",
            f"{entry.blocks_used} of {entry.blocks}",
            str(entry.pending_media_tokens),
            f"{entry.evicted} ({entry.evicted_bytes / 2**20:.1f} MB)" if entry.evicted else "",
            f"loading {entry.loading}" if entry.loading else "draining" if entry.draining else "",
        ]
        for entry in cell.workers
    ]
    columns = ("id", "stages", "model", "slots", "KV blocks", "media tokens waiting", "evicted", "")
    console.table("workers", columns, workers)
    ended = ", ".join(f"{count} {reason}" for reason, count in sorted(cell.ended_by_reason.items()))
    console.plain(f"\naccepted {cell.accepted}, ended {cell.ended}" + (f" ({ended})" if ended else ""))


async def _devices(console: Console, state: RunState) -> None:
    governor = await operator.governor_state(state.services["governor-0"])
    rows = [
        [device.device, device.source, _reading(device.power_w, "W"), _reading(device.temp_c, "°C"), device.unreadable]
        for device in governor.devices
    ]
    if rows:
        console.table("devices", ("device", "source", "power", "temperature", ""), rows)
    for note in governor.notes:
        console.note(note)


def _reading(value: float, unit: str) -> str:
    return "-" if value < 0 else f"{value:.1f} {unit}"


def _age(started_s: float) -> str:
    minutes, seconds = divmod(int(max(0.0, time.time() - started_s)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
