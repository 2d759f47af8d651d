"""Does the simulator say what a live mesh does? Small meshes are calibrated, asked, and simulated alike.

Calibration and replay take turns, so that a machine that changes its pace changes it for both. What the processors had
left to do is told with the figures: where they are busy, processes wait for a core, and no simulation knows of that.
"""

import argparse
import asyncio
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import psutil

from headrace.calibration import Calibration, Limits, PoorFit, Shape
from headrace.calibration.asking import Asker
from headrace.calibration.calibrate import derive
from headrace.calibration.probes import Measured, measure
from headrace.calibration.writing import Origin, fleet_lines, write
from headrace.cli.calibrate import CHUNK_TOKENS, find_shape
from headrace.cli.supervisor import Mesh
from headrace.client.aio import AsyncClient
from headrace.engines.families import family
from headrace.profiles import engine_profile
from headrace.report.provenance import plain, provenance
from headrace.sim.result import Requests
from headrace.sim.run import simulate
from headrace.workload.scenario import Scenario, parse
from loadtest.benches.report import finish, say
from loadtest.benches.validation_compare import QUANTILES, as_asked, as_seen, compare, verdicts
from loadtest.benches.validation_subjects import Subject, subjects
from loadtest.replay import replay
from loadtest.replay_rows import Replayed

POLICY = "fcfs"
SEED = 11


@dataclass(frozen=True, slots=True)
class Round:
    scenario: Scenario
    replayed: Replayed
    idle_share: float  # of all cores, while it was replayed
    others_share: float  # of all cores, that neither the mesh nor this client took


async def run(subject: Subject, rounds: int, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        config = subject.mesh_config(folder)
        async with Mesh(config) as mesh, AsyncClient(mesh.grpc_addr) as client:
            shape = await find_shape(client, mesh.addresses.grpc["qm-0"], limits_of(subject, config.profile))
            measured, done = Measured(), list[Round]()
            for number in range(rounds):
                await calibrate_once(client, subject, shape, measured, number)
                done.append(await replay_once(mesh, subject.scenario(seconds, SEED + number)))
                say(f"  {subject.name}: round {number + 1} of {rounds}, {done[-1].idle_share:.0%} of the cores idle")
        known = engine_profile(config.profile).cost if subject.known else None
        found = derive(measured, shape, known)
        return _figures(subject, found, done, with_fleet(found, folder, done))


def limits_of(subject: Subject, profile: str) -> Limits:
    spec = family(subject.model).spec
    engine = engine_profile(profile) if profile else None
    return Limits(
        context_tokens=spec.context_tokens,
        block_tokens=spec.block_tokens,
        chunk_tokens=engine.chunk_tokens if engine is not None else CHUNK_TOKENS[subject.engine],
        kv_bytes_per_token=engine.kv_bytes_per_token if engine is not None else spec.kv_bytes_per_token,
        embed_bytes_per_token=spec.embed_width * 4,
    )


async def calibrate_once(client: AsyncClient, subject: Subject, shape: Shape, into: Measured, number: int) -> None:
    plan = replace(subject.plan, seed=SEED + number)
    found = await measure(Asker(client, Random(plan.seed)), shape, plan, lambda _: None)
    for probe, answers in found.answers.items():
        into.answers.setdefault(probe, []).extend(answers)


async def replay_once(mesh: Mesh, scenario: Scenario) -> Round:
    of = [psutil.Process(pid) for pid in (*map(mesh.pid, mesh.ids), mesh.nats.pid, mesh.redis.pid)]
    ours = [*of, psutil.Process()]
    before, before_s, cores = psutil.cpu_times(), _cpu_s(ours), psutil.cpu_count() or 1
    began_s = time.monotonic()
    done = await replay(scenario, mesh.grpc_addr)
    after, wall_s = psutil.cpu_times(), time.monotonic() - began_s
    idle = (after.idle - before.idle) / (wall_s * cores)
    return Round(scenario, done, idle, max(0.0, 1 - idle - (_cpu_s(ours) - before_s) / (wall_s * cores)))


def _cpu_s(processes: list[psutil.Process]) -> float:
    return float(sum(sum(process.cpu_times()[:2]) for process in processes))


def with_fleet(found: Calibration, folder: Path, done: list[Round]) -> list[Scenario]:
    """The rounds' scenarios with the calibrated fleet and seconds."""
    origin = Origin("here", False, provenance(["headrace", "bench", "validation"], [SEED]))
    profile, _ = write(found, origin, folder / "calibrated.toml")
    fleet = tomllib.loads("\n".join(fleet_lines(found.shape, f"{profile}/tp1")))["fleet"]
    bare = {"about": "x", "duration_s": 1.0, "workload": {"kind": "generated", "rate_rps": 1.0}}
    made = parse(bare | {"fleet": fleet, "mesh": found.mesh_seconds}, Path("calibrated.toml"))
    return [replace(each.scenario, fleet=made.fleet, mesh=made.mesh, model=found.shape.model) for each in done]


def _figures(subject: Subject, found: Calibration, done: list[Round], scenarios: list[Scenario]) -> dict[str, Any]:
    live, simulated = list[Requests](), list[Requests]()
    for each, scenario in zip(done, scenarios, strict=True):
        rows = each.replayed.rows
        asked = as_asked(list(each.scenario.arrivals()), rows)
        simulated.append(simulate(scenario, POLICY, scenario.seed, arrivals=asked).requests)
        live.append(as_seen(each.replayed.requests, rows))
    figures = compare(live, simulated)
    return {
        "subject": subject.name,
        "engine": subject.engine,
        "rate_rps": subject.rate_rps,
        "requests": sum(len(each) for each in live),
        "finished": sum(int(each.finished.sum()) for each in live),
        "idle_share": min(each.idle_share for each in done),
        "others_share": max(each.others_share for each in done),
        **figures,
        "within": verdicts(figures, dict(subject.wanted)),
        "calibration": {"mesh": found.mesh_seconds, **_quality(found)},
    }


def _quality(found: Calibration) -> dict[str, Any]:
    """How well the fits foresee what was held out of them; "poor": why `headrace calibrate` would refuse."""
    fits = {"engine": found.engine, "encoder": found.encoder}
    out: dict[str, Any] = {
        name: {"median_error": each.median_error, "held_out": each.held_out.error}
        for name, each in fits.items()
        if each is not None
    }
    try:
        found.check()
    except PoorFit as error:
        out["poor"] = str(error)
    return out


def _tell(row: dict[str, Any]) -> None:
    say(
        f"\n{row['subject']}: {row['requests']} requests, {row['finished']} finished; at least {row['idle_share']:.0%} "
        f"of the cores idle, others took up to {row['others_share']:.0%}"
    )
    say(f"  {'':16} {'live, ms':>10} {'simulated':>10} {'error':>8}")
    for name, figures in (("ttft", row["ttft"]), ("jct", row["jct"]), *row["stages"].items()):
        for quantile in QUANTILES:
            each = figures[f"p{quantile * 100:g}"]
            label = f"{name} p{quantile * 100:g}"
            say(f"  {label:20} {each['live_s'] * 1e3:8.1f} {each['simulated_s'] * 1e3:10.1f} {each['error']:+8.1%}")
    if "poor" in row["calibration"]:
        say(f"  calibration is poor: {row['calibration']['poor']}")
    say(f"  within what is wanted: {row['within']}")


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="headrace bench validation", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
    parser.add_argument("--quick", action="store_true", help="one round of a few seconds, stages apart alone")
    parser.add_argument("--engine", choices=("profile", "onnx", "torch"), default="profile")
    parser.add_argument("--only", default="", help="subjects whose names begin with this")
    parser.add_argument("--rounds", type=int, default=0, help="calibration and replay in turn")
    parser.add_argument("--seconds", type=float, default=0.0, help="of arrivals in each round")
    args = parser.parse_args(argv)
    modelled = args.engine == "profile"
    rounds, seconds = (1, 12.0 if modelled else 24.0) if args.quick else (3, 40.0 if modelled else 80.0)
    rounds, seconds = args.rounds or rounds, args.seconds or seconds
    chosen = [each for each in subjects(args.engine) if each.name.startswith(args.only)]
    rows = []
    for subject in chosen[:1] if args.quick else chosen:
        rows.append(asyncio.run(run(subject.quick() if args.quick else subject, rounds, seconds)))
        _tell(rows[-1])
    if args.json:
        finish("validation", argv, [SEED + number for number in range(rounds)], {"validation": plain(rows)})


if __name__ == "__main__":
    main()
