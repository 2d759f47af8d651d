"""The queue bench's cells on a live mesh: real processes, bus and journal, and workers that sleep for a GPU's time.

Two workers that prefill and decode, each at the pace of the simulated instance with the model that it serves,
everything so many times faster: profiles, targets, time-outs, arrivals. One cell runs in unscaled time, for a shorter
while. What differs from the simulated cells: prompts are cut to what the tiny family holds, KV caches are small,
answers have the length that their requests allow, and a worker has the KV blocks of its first model whichever it serves
(W_B's ten sequences a worker hardly ever fill those of any). Doors let in whoever comes, as the simulator's do. Hops
and turns of a loop weigh so many times more than they would: what a live cell carries is less.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from headrace.cli.plan import MeshConfig
from headrace.cli.supervisor import Mesh
from headrace.client import operator
from headrace.core.cost import StepCost
from headrace.core.slo import CLASSES as SLO_CLASSES
from headrace.core.slo import SloClass
from headrace.engines.families.profile_tiny import SPEC
from headrace.sim.fleet import kind_of
from headrace.sim.kind import Kind
from headrace.v1 import queue_pb2
from headrace.v1.governor_pb2 import Telemetry
from headrace.workload.arrival import Arrival
from headrace.workload.scenario import Scenario, parse
from headrace.workload.traces.headrace import save
from loadtest.benches.queue_runs import share
from loadtest.benches.queue_workloads import CLASSES, SLOTS, WORKLOADS, Workload
from loadtest.benches.report import say
from loadtest.replay import replay
from loadtest.replay_rows import Replayed

SEED = 1
# An iteration of 90 ms takes 4.5: what the loop around it takes is still small beside it. It is not beside W_B's
# quickest, 10 ms of the 20B model on four A100: there fewer times (--live-scale) come nearer to what is simulated.
SCALE = 20.0
HORIZON_S = 3_600.0  # of arrivals, before they are scaled
UNSCALED = ("W_A", 1.2)
UNSCALED_HORIZON_S = 900.0
DRAIN_S = 7_200.0
WAITING_MAX = 8_192  # more than come: what waits in an overload must not keep the client from sending what comes then
KV_BYTES = 2_048  # a token's: this machine's memory carries it, a 70B model's it would not
PROMPT_TOKENS_MAX = SPEC.context_tokens - 1_024 - 64  # an answer and the chat template beside it
# By the report's name: what the queue manager is told.
POLICIES: Mapping[str, Mapping[str, str]] = {
    "fcfs": {"HEADRACE_ORDER": "fcfs"},
    "edf": {"HEADRACE_ORDER": "edf"},
    "headrace": {"HEADRACE_PLANNER": "headrace"},
}


@dataclass(frozen=True, slots=True)
class Live:
    """A cell, and how it is run."""

    workload: str
    load: float
    rate_rps: float  # unscaled
    scale: float
    horizon_s: float  # unscaled

    @property
    def shape(self) -> Workload:
        return WORKLOADS[self.workload]

    def __str__(self) -> str:
        return f"{self.workload} at {self.load:g}, {self.scale:g} times as fast"


@dataclass(frozen=True, slots=True)
class LiveRun:
    cell: Live
    policy: str  # a name of POLICIES


def cells(rates_rps: Mapping[str, float], loads: Sequence[float], scale: float = 0.0) -> list[Live]:
    """rates_rps: saturation by workload. scale: 0 as planned."""
    found = []
    for name, rps in rates_rps.items():
        for load in loads:
            unscaled = (name, load) == UNSCALED and not scale
            how = (1.0, UNSCALED_HORIZON_S) if unscaled else (scale or SCALE, HORIZON_S)
            found.append(Live(name, load, load * rps, *how))
    return found


def jobs(chosen: Sequence[Live], policies: Sequence[str] = ()) -> list[LiveRun]:
    """policies: names of the report; those that no live mesh has are left out. Empty: all."""
    return [LiveRun(cell, policy) for cell in chosen for policy in POLICIES if not policies or policy in policies]


def carry_out(run: LiveRun) -> dict[str, Any]:
    """The row of one mesh, from its start to its end."""
    row = asyncio.run(_run(run.cell, run.policy))
    say(f"  live {run.cell}, {run.policy}: {row['attainment']:.1%} kept, {row['throughput_rps']:.2f} requests/s")
    return row


def by_cell(rows: Iterable[tuple[LiveRun, dict[str, Any]]]) -> dict[str, Any]:
    """{workload: {load: {policy: figures}}}."""
    out: dict[str, Any] = {}
    for run, row in rows:
        out.setdefault(run.cell.workload, {}).setdefault(f"{run.cell.load:g}", {})[run.policy] = row
    return out


async def _run(cell: Live, policy: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        async with Mesh(mesh_config(cell, policy, folder)) as mesh:
            done, busy = await asyncio.gather(
                replay(scenario(cell, folder), mesh.grpc_addr, in_flight_max=WAITING_MAX),
                _utilisation(cell.horizon_s / cell.scale, mesh.addresses.grpc["governor-0"]),
            )
            told = _told(cell, await operator.inspect(mesh.addresses.grpc["qm-0"]))
            return _row(cell, done) | told | {"utilisation": busy}


async def _utilisation(while_coming_s: float, governor: str) -> float:
    """While requests come; of a mesh that has just started."""
    begun_s = time.time()
    await asyncio.sleep(while_coming_s)
    state = await operator.governor_state(governor)
    return utilisation([each.samples[-1] for each in state.workers], begun_s)


def utilisation(latest: Sequence[Telemetry], begun_s: float) -> float:
    """Share of the LLM workers' time since then in which they computed: a mesh of texts has an encoder, too."""
    llms = [one for one in latest if "decode" in one.stages]
    return sum((one.prefill_busy_s + one.decode_busy_s) / (one.sent_s - begun_s) for one in llms) / len(llms)


def _row(cell: Live, done: Replayed) -> dict[str, Any]:
    """In unscaled seconds."""
    requests, met = done.requests, done.result.met()
    in_time = requests.finished & (requests.end_s <= cell.horizon_s / cell.scale)
    return {
        "requests": len(requests),
        "attainment": share(met),
        "by_class": {name: share(met[requests.slo_class == at]) for at, name in enumerate(CLASSES)},
        "throughput_rps": float(in_time.sum()) / cell.horizon_s,
        "scale": cell.scale,
        "horizon_s": cell.horizon_s,
        "sent_late": done.late,
        "in_flight_max": done.in_flight_max,
        "ci95": None,  # one seed
    }


def _told(cell: Live, seen: queue_pb2.InspectResponse) -> dict[str, Any]:
    """By the queue manager at the end: what it has done, and how far off its expected waits were, by how many requests
    stood ahead; of each such number the latest thousand count."""
    return {
        "swaps": float(seen.operations["load_cold"] + seen.operations["load_warm"]),
        "evictions": float(seen.operations["evict"]),
        "plans": float(seen.planner.plans_applied),
        "planner_s": seen.planner.solve_s,  # of the clock: from each question to its answer
        "wait_errors": [
            {
                "ahead_from": row.ahead_from,
                "requests": row.requests,
                "median_s": row.median_s * cell.scale,
                "p90_s": row.p90_s * cell.scale,
                "median_share": row.median_share,
                "within_bound": row.within_bound,
            }
            for row in seen.wait_errors
        ],
    }


# --- what the mesh and its client are told ---


def mesh_config(cell: Live, policy: str, folder: Path) -> MeshConfig:
    kinds = _kinds(cell.shape)
    models = live_names(cell.shape)
    common = {
        "HEADRACE_PREFIX_CACHE_MB": "0",  # prompts of a replay are made of few words
        "HEADRACE_SLOTS": str(SLOTS),
        "HEADRACE_REPLAN_S": repr(max(0.05, 1.0 / cell.scale)),  # the core looks whether to plan four times a second
        "HEADRACE_EVICT_REST_S": repr(1.0 / cell.scale),
        "HEADRACE_CLASSES_FILE": str(_classes_file(cell.scale, folder)),
        **({"HEADRACE_MODELS": ",".join(models.values()), "HEADRACE_WARM_MODELS": "2"} if len(models) > 1 else {}),
        **POLICIES[policy],
    }
    own = {
        f"worker-{at}": {
            "HEADRACE_PROFILE": str(_profile_file(kind, models, cell.scale, folder)),
            "HEADRACE_BLOCKS": str(kind.blocks),
            "HEADRACE_MODEL": models[kind.model],
        }
        for at, kind in enumerate(kinds)
    }
    return MeshConfig(
        data_dir=folder / "mesh",
        engine="profile",
        model=models[cell.shape.models[0]],
        profile="zero",
        prefill=len(kinds),
        decode=len(kinds),
        colocate=("prefill", "decode"),
        cores=len(os.sched_getaffinity(0)),
        environment=common,
        service_environment=own,
    )


def live_names(workload: Workload) -> dict[str, str]:
    """By the workload's own: the family without weights, under as many names as there are models."""
    if len(workload.models) == 1:
        return {workload.models[0]: SPEC.name}
    return {name: f"{SPEC.name}-{''.join(filter(str.isalnum, name))}" for name in workload.models}


def _kinds(workload: Workload) -> list[Kind]:
    """One for each worker."""
    fleet = workload.scenario().fleet
    assert fleet is not None
    return [kind_of(pool, workload.models[0]) for pool in fleet.pools for _ in range(pool.count)]


def _profile_file(kind: Kind, names: Mapping[str, str], scale: float, folder: Path) -> Path:
    path = folder / f"{kind.pool}.toml"
    path.write_text(profile_text(kind, names, scale), encoding="utf-8")
    return path


def profile_text(kind: Kind, names: Mapping[str, str], scale: float) -> str:
    """An engine profile of an instance's seconds, so many times faster: its model's, and those of each other that it
    may load. names: live_names."""
    lines = [f"kv_bytes_per_token = {KV_BYTES}", *_pace(kind, scale), "[cost]", *_cost(kind.step, scale)]
    for other in kind.others:
        table = f'models."{names[other.model]}"'
        lines += [f"[{table}]", *_pace(other, scale), f"[{table}.cost]", *_cost(other.step, scale)]
    return "\n".join((*lines, ""))


def _pace(kind: Kind, scale: float) -> list[str]:
    return [
        f'source = "[I] {kind.pool}, {kind.model}: its instance profile, {scale:g} times faster"',
        f"chunk_tokens = {kind.chunk_tokens}",
        f"load_cold_s = {kind.load_cold_s / scale!r}",
        f"load_warm_s = {kind.load_warm_s / scale!r}",
    ]


def _cost(step: StepCost, scale: float) -> list[str]:
    return [
        f"tokens = {[float(x) for x in step.tokens_s.xs]}",
        f"tokens_s = {[y / scale for y in step.tokens_s.ys]}",
        f"prefill_pair_s = {step.prefill_pair_s / scale!r}",
        f"decode_sequence_s = {step.decode_sequence_s / scale!r}",
        f"decode_context_token_s = {step.decode_context_token_s / scale!r}",
    ]


def scaled(slo: SloClass, scale: float) -> SloClass:
    return replace(slo, ttft_s=slo.ttft_s / scale, timeout_s=slo.timeout_s / scale, ttl_s=slo.ttl_s / scale)


def _classes_file(scale: float, folder: Path) -> Path:
    lines = []
    for name in CLASSES:
        told = asdict(scaled(SLO_CLASSES[name], scale))
        lines.append(f"[classes.{name}]")
        lines += [f"{key} = {told[key]!r}" for key in ("ttft_s", "timeout_s", "ttl_s", "queue_limit")]
        lines.append(f"refuse_s = {told['timeout_s']!r}")  # a door that turns away would do for fcfs what it cannot
    path = folder / "classes.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def arrivals(cell: Live) -> list[Arrival]:
    """The simulated cell's, faster; answers end where they did, for a live engine knows no other length."""
    asked, names = cell.shape.arrivals(cell.rate_rps, SEED, cell.horizon_s), live_names(cell.shape)
    return [
        replace(
            each,
            at_s=each.at_s / cell.scale,
            input_tokens=min(each.input_tokens, PROMPT_TOKENS_MAX),
            max_tokens=each.output_tokens,
            model=names[each.model],
        )
        for each in asked
    ]


def scenario(cell: Live, folder: Path) -> Scenario:
    trace = folder / "arrivals.jsonl"
    save(arrivals(cell), trace)
    slos = {name: scaled(SLO_CLASSES[name], cell.scale) for name in CLASSES}
    raw = {
        "about": f"live cell {cell}",
        "seed": SEED,
        "duration_s": cell.horizon_s / cell.scale,
        "drain_s": DRAIN_S / cell.scale,
        "model": live_names(cell.shape)[cell.shape.models[0]],
        "workload": {"kind": "trace", "file": str(trace), "format": "headrace"},
        "classes": {name: {"ttft_s": slo.ttft_s, "timeout_s": slo.timeout_s} for name, slo in slos.items()},
    }
    return parse(raw, folder / "queue_live.toml")
