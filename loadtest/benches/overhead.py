"""What the path around the engine costs: the profile engine at zero latency behind the full durable path.

Six services, NATS with its journal, Redis, the default model's tokenizer, validation, leases, tracing sampled as by
default, the length predictor on and, in a mesh of its own, off. The client runs on the same cores. Peer: NVIDIA Dynamo
1.6.1's mock path (Rust front end, not durable), figures in docs/figures.md.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from headrace.cli.plan import MeshConfig
from headrace.cli.supervisor import Mesh
from headrace.predictor.model import lacking
from loadtest.benches.report import finish, percentile, say
from loadtest.benches.stream_load import PROMPT

POINTS = ((1, 1), (16, 1), (16, 32), (64, 32))  # (concurrency, max_tokens)
REQUESTS = {(1, 1): 600, (16, 1): 6_000, (16, 32): 2_000, (64, 32): 3_000}
HOP_SAMPLES = 100


@dataclass(frozen=True, slots=True)
class Mode:
    name: str
    client: str  # module of the load client
    colocate: tuple[str, ...] = ()
    sync_always: bool = False
    predicts: bool = True  # the length predictor is asked for each request, if it is installed

    @property
    def environment(self) -> dict[str, str]:
        """By default the predictor loads while a mesh serves; here it is there before the first request."""
        return {"HEADRACE_PREDICT": ("auto" if lacking() else "on") if self.predicts else "off"}


WITH, WITHOUT = "http", "http_predict_off"  # of the length predictor: what is compared
MODES = (
    Mode(WITH, "loadtest.benches.stream_load"),
    Mode(WITHOUT, "loadtest.benches.stream_load", predicts=False),
    Mode("grpc", "loadtest.benches.grpc_load"),
    Mode("http_colocated", "loadtest.benches.stream_load", colocate=("encode", "prefill", "decode")),
    Mode("http_sync_always", "loadtest.benches.stream_load", sync_always=True),
)


def processes(mesh: Mesh) -> dict[str, psutil.Process]:
    pids = {name: mesh.pid(name) for name in mesh.ids}
    pids |= {"nats-server": mesh.nats.pid, "redis-server": mesh.redis.pid}
    return {name: psutil.Process(pid) for name, pid in pids.items()}


def cpu_s(of: dict[str, psutil.Process]) -> dict[str, float]:
    return {name: sum(process.cpu_times()[:2]) for name, process in of.items()}


async def measure(mesh: Mesh, mode: Mode, concurrency: int, max_tokens: int, requests: int) -> dict[str, Any]:
    """One point: the load client as a process of its own, CPU read around it."""
    addr = mesh.grpc_addr if mode.client.endswith("grpc_load") else mesh.http_url.removeprefix("http://")
    of = processes(mesh)
    before = cpu_s(of)
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-m", mode.client, addr, mesh.config.model, str(concurrency), str(requests), str(max_tokens),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await client.communicate()
    if client.returncode:
        raise RuntimeError(f"the load client ended with {client.returncode}")
    row: dict[str, Any] = json.loads(out)
    done = max(1, row["requests"])
    after = cpu_s(of)
    row["cpu_ms_per_request"] = {name: round(1e3 * (after[name] - before[name]) / done, 3) for name in of}
    row["cpu_ms_per_request"]["client"] = round(1e3 * row.pop("client_cpu_s") / done, 3)
    say(
        f"  {mode.name:17} {concurrency:3} x {max_tokens:3}: {row['req_s']:8.0f} req/s {row['tok_s']:8.0f} tok/s  "
        f"TTFT p50 {row['ttft_p50_ms']:6.2f} p99 {row['ttft_p99_ms']:6.2f} ms  failures {row['failures']}  "
        f"CPU {sum(row['cpu_ms_per_request'].values()):.2f} ms/request"
    )
    return row


async def hops(mesh: Mesh) -> dict[str, float]:
    """p50 of each stage of the timeline, one request of two tokens at a time."""
    durations: dict[str, list[float]] = {}
    body = {
        "model": mesh.config.model,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": 2,
        "ignore_eos": True,
    }
    async with httpx.AsyncClient(base_url=mesh.http_url, headers={"x-headrace-timeline": "1"}, timeout=30) as http:
        for _ in range(HOP_SAMPLES):
            answer = (await http.post("/v1/chat/completions", json=body)).raise_for_status().json()
            for span in answer["headrace"]["timeline"]:
                durations.setdefault(span["stage"], []).append(span["end_s"] - span["start_s"])
    return {stage: round(1e3 * percentile(values, 0.5), 3) for stage, values in durations.items()}


async def run_mode(mode: Mode, share: float) -> tuple[list[dict[str, Any]], dict[str, float]]:
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as directory:
        config = MeshConfig(
            data_dir=Path(directory),
            engine="profile",
            profile="zero",
            colocate=mode.colocate,
            sync_always=mode.sync_always,
            environment=mode.environment,
        )
        async with Mesh(config, progress=lambda line: None) as mesh:
            say(f"{mode.name}:")
            rows = [await measure(mesh, mode, c, n, max(60, int(REQUESTS[c, n] * share))) for c, n in POINTS]
            return rows, await hops(mesh)


async def run(modes: tuple[Mode, ...], share: float) -> dict[str, Any]:
    figures: dict[str, Any] = {"hops_ms": {}}
    for mode in modes:
        figures[mode.name], hop = await run_mode(mode, share)
        figures["hops_ms"][mode.name] = hop
    if {WITH, WITHOUT} <= figures.keys():
        figures["predictor"] = {"lacking": lacking(), "points": predictor(figures[WITH], figures[WITHOUT])}
    return figures


def predictor(on: list[dict[str, Any]], off: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the length predictor costs, point by point: {"on", "off"} of each figure that it may change."""
    points = []
    for one, other in zip(on, off, strict=True):
        point = {"concurrency": one["concurrency"], "max_tokens": one["max_tokens"]}
        pairs = {name: {"on": one[name], "off": other[name]} for name in ("req_s", "ttft_p50_ms", "ttft_p99_ms")}
        cpu = {word: row["cpu_ms_per_request"]["qm-0"] for word, row in (("on", one), ("off", other))}
        points.append(point | pairs | {"queue_manager_cpu_ms_per_request": cpu})
    return points


def show_predictor(told: dict[str, Any]) -> None:
    say(f"length predictor on / off{' (' + told['lacking'] + ')' if told['lacking'] else ''}:")
    for point in told["points"]:
        req_s, p50, p99 = (point[name] for name in ("req_s", "ttft_p50_ms", "ttft_p99_ms"))
        cpu = point["queue_manager_cpu_ms_per_request"]
        say(
            f"  {point['concurrency']:3} x {point['max_tokens']:3}: {req_s['on']:8.0f} / {req_s['off']:.0f} req/s  "
            f"TTFT p50 {p50['on']:.2f} / {p50['off']:.2f} p99 {p99['on']:.2f} / {p99['off']:.2f} ms  "
            f"CPU of the queue manager {cpu['on']:.2f} / {cpu['off']:.2f} ms/request"
        )


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="headrace bench overhead", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
    parser.add_argument("--quick", action="store_true", help="a fifteenth of the requests, under 60 s")
    parser.add_argument("--mode", choices=[mode.name for mode in MODES], help="this one alone")
    args = parser.parse_args(argv)
    chosen = tuple(mode for mode in MODES if args.mode in (None, mode.name))
    figures = asyncio.run(run(chosen, 1 / 15 if args.quick else 1.0))
    hop = figures["hops_ms"].get("http") or next(iter(figures["hops_ms"].values()))
    say("hops (p50, ms): " + ", ".join(f"{stage} {ms}" for stage, ms in hop.items()))
    if "predictor" in figures:
        show_predictor(figures["predictor"])
    if args.json:
        finish("overhead", argv, [], figures)


if __name__ == "__main__":
    main()
