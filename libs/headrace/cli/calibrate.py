"""`headrace calibrate`: measures the running mesh and writes what the simulator needs to stand in for it.

A profile of its engines, the mesh's own seconds, and a scenario with its fleet, each with the residuals of its fit.
"""

import argparse
import asyncio
import json
import math
import os
import secrets
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import grpc

from headrace.calibration import Calibration, CalibrationError, Limits, Plan, Shape, calibrate, shape_of
from headrace.calibration.writing import Origin, write
from headrace.cli import runstate
from headrace.cli.options import add_data_dir
from headrace.cli.runstate import RunState
from headrace.cli.view import Console
from headrace.client import operator
from headrace.client.aio import AsyncClient
from headrace.client.errors import HeadraceError
from headrace.core.cost import StepCost
from headrace.core.errors import HeadraceError as CoreError
from headrace.engines.families import family
from headrace.profiles import ProfileError, engine_profile, packaged
from headrace.report.provenance import plain, provenance

# Prefill tokens of one iteration where nothing else is said: what the engines take by themselves.
CHUNK_TOKENS = {"onnx": 256, "torch": 256, "profile": 8192}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_dir(parser)
    parser.add_argument("--out", type=Path, default=Path("profile.toml"), help="the profile; a scenario stands beside")
    parser.add_argument("--quick", action="store_true", help="fewer sizes and rounds")
    parser.add_argument("--rounds", type=int, default=0, help="repetitions of everything, instead of the plan's")
    parser.add_argument("--seed", type=int, default=-1, help="of prompts, pictures and the order of probes; else drawn")
    parser.add_argument("--device", default="", help="what the engines run on: a card such as h100, or any word")
    parser.add_argument("--known", default="", help="a profile whose costs are the engine's: only the mesh is measured")
    parser.add_argument("--chunk-tokens", type=int, default=0, help="of one iteration; the engine's own, unless said")
    parser.add_argument("--kv-bytes", type=int, default=-1, help="of a token; the model's own, unless said")
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object, the last line")


def run(args: argparse.Namespace) -> int:
    with redirect_stdout(sys.stderr if args.json else sys.stdout):
        console = Console()
        state = runstate.running(args.data_dir)
        if state is None:
            console.error(runstate.NO_MESH)
            return 1
        try:
            found, origin, written = asyncio.run(_calibrate(args, state, console))
        except (CalibrationError, ProfileError, HeadraceError, CoreError, OSError) as error:
            console.error(str(error))
            return 1
        except grpc.RpcError as error:
            console.error(f"a manager does not answer: {error}")
            return 1
        show(console, found)
        for path in written:
            console.plain(f"written: {path}")
        console.note(f"try it: headrace simulate {written[-1]}")
    if args.json:
        print(json.dumps(plain(origin.provenance.head() | figures(found))), flush=True)
    return 0


async def _calibrate(
    args: argparse.Namespace, state: RunState, console: Console
) -> tuple[Calibration, Origin, Sequence[Path]]:
    # Drawn: what was asked before is in the caches, and would tell what a cache costs.
    seed = args.seed if args.seed >= 0 else secrets.randbelow(10**6)
    plan = Plan.quick(seed) if args.quick else Plan(seed=seed)
    plan = plan.with_rounds(args.rounds) if args.rounds > 0 else plan
    known = engine_profile(args.known) if args.known else None
    async with AsyncClient(state.grpc_addresses, tls=runstate.door(state)) as client:
        shape = await find_shape(client, state.services["qm-0"], _limits(args, state))
        console.step(f"{shape.model} on the {state.engine} engine: " + ", ".join(_pools(shape)) + f"; seed {seed}")
        cost: StepCost | None = known.of(shape.model).cost if known is not None else None
        found = await calibrate(client, shape, plan, known=cost, say=console.step)
    device = args.device or ("cpu" if state.engine == "onnx" else state.engine)
    origin = Origin(device, device in packaged("gpus"), provenance(["headrace", *sys.argv[1:]], [seed]))
    return found, origin, write(found, origin, args.out, args.known)


async def find_shape(client: AsyncClient, queue_manager: str, limits: Limits) -> Shape:
    """Raises CalibrationError: the mesh is answering others, or is of no layout that can be simulated."""
    cell = await operator.cell_status(queue_manager)
    if busy := sum(entry.queued + entry.running for entry in cell.classes):
        raise CalibrationError(f"the mesh is answering {busy} other requests: calibrate it while it does nothing else")
    model = (await client.models())[0]
    return shape_of(model.id, model.modalities, cell.workers, limits)


def _limits(args: argparse.Namespace, state: RunState) -> Limits:
    """What statuses do not say: from the model's own facts, the known profile, and the command line before both."""
    spec = family(state.model).spec
    known = engine_profile(args.known).of(spec.name) if args.known else None
    chunk = known.chunk_tokens if known is not None else CHUNK_TOKENS.get(state.engine, 2048)
    kv_bytes = known.kv_bytes_per_token if known is not None else spec.kv_bytes_per_token
    return Limits(
        context_tokens=spec.context_tokens,
        block_tokens=spec.block_tokens,
        chunk_tokens=args.chunk_tokens or chunk,
        kv_bytes_per_token=args.kv_bytes if args.kv_bytes >= 0 else kv_bytes,
        embed_bytes_per_token=spec.embed_width * 4,
    )


def _pools(shape: Shape) -> list[str]:
    return [f"{pool.count} x {'+'.join(pool.stages)} ({pool.slots} slots)" for pool in shape.pools]


# --- what is shown ---


def show(console: Console, found: Calibration) -> None:
    if found.engine is not None:
        _show_engine(console, found)
    if found.encoder is not None:
        cost = found.encoder.cost
        rows = [
            ("reading a picture", _ms(cost.preprocess_part_s), _percent(found.encoder.median_error)),
            ("a megapixel of it", _ms(cost.preprocess_megapixel_s), _percent(found.encoder.worst_error) + " worst"),
            *((f"the tower, {x:g} tiles", _ms(y), "") for x, y in zip(cost.tiles_s.xs, cost.tiles_s.ys, strict=True)),
        ]
        console.table("encoding", ("of", "ms", "error"), rows)
    seconds = [(name, _value(name, each.value), _ms(each.spread), each.how) for name, each in found.mesh.items()]
    console.table("the mesh's own seconds", ("name", "value", "spread, ms", "measured as"), seconds)
    if found.handed:
        moved = zip(found.handed, found.handed_errors, strict=True)
        rows = [(f"{each.tokens} tokens", _ms(each.seconds), _percent(error)) for each, error in moved]
        console.table("hand-overs", ("KV cache of", "ms", "error of the fit"), rows)
    console.note(f"machine load now: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def _show_engine(console: Console, found: Calibration) -> None:
    assert found.engine is not None
    engine, step = found.engine, found.engine.step
    rows = [(each.name, _ms(each.seconds), _percent(engine.errors[each.name])) for each in found.observed]
    console.table("iterations", ("measured", "ms", "error of the fit"), rows)
    fitted = [
        *((f"{x:g} tokens", _ms(y), "ms") for x, y in zip(step.tokens_s.xs, step.tokens_s.ys, strict=True)),
        ("a pair of prefill", f"{step.prefill_pair_s * 1e9:.3f}", "ns"),
        ("a decoding sequence", f"{step.decode_sequence_s * 1e6:.1f}", "us"),
        ("a token that it looks at", f"{step.decode_context_token_s * 1e9:.1f}", "ns"),
    ]
    console.table("what an iteration costs", ("", "value", "unit"), fitted)
    missed = engine.held_out.error
    held_out = "nothing was held out" if math.isnan(missed) else f"held out {missed:.1%}"
    console.plain(f"relative errors: median {engine.median_error:.1%}, worst {engine.worst_error:.1%}, {held_out}")


def figures(found: Calibration) -> dict[str, Any]:
    """What --json prints beside the head."""
    out: dict[str, Any] = {
        "mesh": {name: {"s": each.value, "spread_s": each.spread} for name, each in found.mesh.items()},
        "observed": {each.name: each.seconds for each in found.observed},
        "handovers": {str(each.tokens): each.seconds for each in found.handed},
    }
    if found.engine is not None:
        step = found.engine.step
        out["engine"] = {
            "tokens": step.tokens_s.xs,
            "tokens_s": step.tokens_s.ys,
            "prefill_pair_s": step.prefill_pair_s,
            "decode_sequence_s": step.decode_sequence_s,
            "decode_context_token_s": step.decode_context_token_s,
            "errors": found.engine.errors,
            "median_error": found.engine.median_error,
            "worst_error": found.engine.worst_error,
            "held_out": found.engine.held_out.error,
        }
    if found.encoder is not None:
        cost = found.encoder.cost
        out["encoder"] = {
            "part_s": cost.preprocess_part_s,
            "megapixel_s": cost.preprocess_megapixel_s,
            "tiles": cost.tiles_s.xs,
            "tiles_s": cost.tiles_s.ys,
            "median_error": found.encoder.median_error,
        }
    return out


def _value(name: str, seconds: float) -> str:
    return f"{seconds * 1e9:.3f} ns" if "byte" in name else f"{seconds * 1e3:.3f} ms"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}"


def _percent(share: float) -> str:
    return f"{share:+.1%}"
