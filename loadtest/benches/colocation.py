"""Prefill and decode apart or in one process, with the same number of workers: where each wins, by model and load.

Two workers on this machine: one prefill and one decode worker, or two that do both. SmolLM2 computes on the machine's
cores; the profiles of an 8B and a 70B model take their GPUs' time and move KV caches of their size. Arrivals are a
Poisson process and wait for nobody.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.cli.plan import MeshConfig
from headrace.cli.supervisor import Mesh
from headrace.client.aio import AsyncClient
from loadtest.benches.asks import Asked, OpenLoop, ask, drive
from loadtest.benches.report import finish, percentile, say

SEED = 8
WARM_UP = 4  # at once, of the longest prompts: the pages that KV caches travel in are made once


@dataclass(frozen=True, slots=True)
class Subject:
    """A model and the loads that it is put under: low, medium, high."""

    name: str
    engine: str
    model: str
    profile: str
    loads_rps: tuple[float, ...]
    prompt_words: tuple[int, int]
    max_tokens: int


SUBJECTS = (
    Subject("smollm2-135m", "onnx", "smollm2-135m", "", (0.3, 0.8, 1.6), (30, 120), 24),
    Subject("h100-qwen3-8b", "profile", "profile-tiny", "h100-qwen3-8b", (2.0, 6.0, 12.0), (20, 60), 48),
    Subject("a100x8-llama2-70b", "profile", "profile-tiny", "a100x8-llama2-70b", (0.5, 1.5, 3.0), (20, 60), 32),
)
MODES = {"separated": MeshConfig(), "colocated": MeshConfig(colocate=("prefill", "decode"), prefill=2, decode=2)}


def config(subject: Subject, mode: str, directory: Path) -> MeshConfig:
    shape = MODES[mode]
    return MeshConfig(
        data_dir=directory,
        engine=subject.engine,
        model=subject.model,
        profile=subject.profile,
        prefill=shape.prefill,
        decode=shape.decode,
        colocate=shape.colocate,
        cores=len(os.sched_getaffinity(0)),
    )


async def measure(subject: Subject, mode: str, loads_rps: tuple[float, ...], seconds: float) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as directory:
        async with Mesh(config(subject, mode, Path(directory))) as mesh, AsyncClient(mesh.grpc_addr) as client:
            longest = " ".join(["bridge"] * subject.prompt_words[1])
            await asyncio.gather(*(ask(client, f"{number} {longest}", 4) for number in range(WARM_UP)))
            rows = []
            for rate_rps in loads_rps:
                load = OpenLoop(rate_rps, seconds, subject.prompt_words, subject.max_tokens, SEED)
                rows.append(_row(*await drive(client, load)))
                say(f"  {subject.name:18} {mode:10} {rate_rps:5.1f} req/s: {_words(rows[-1])}")
            return rows


def _row(answers: list[Asked], wall_s: float) -> dict[str, Any]:
    good = [answer for answer in answers if not answer.failed]
    gaps_s = [(answer.end_s - answer.first_s) / (len(answer.tokens) - 1) for answer in good if len(answer.tokens) > 1]
    return {
        "ttft_p50_ms": _ms([answer.first_s for answer in good], 0.5),
        "ttft_p99_ms": _ms([answer.first_s for answer in good], 0.99),
        "token_p50_ms": _ms(gaps_s, 0.5),
        "second_token_p50_ms": _ms([answer.second_s for answer in good], 0.5),
        "tok_s": round(sum(len(answer.tokens) for answer in good) / wall_s, 1),
        "requests": len(answers),
        "failures": len(answers) - len(good),
    }


def _ms(values_s: list[float], share: float) -> float | None:
    return round(1e3 * percentile(values_s, share), 1) if values_s else None


def _words(row: dict[str, Any]) -> str:
    return (
        f"TTFT p50 {row['ttft_p50_ms']} p99 {row['ttft_p99_ms']} ms, {row['token_p50_ms']} ms a token, "
        f"{row['tok_s']} tok/s, {row['requests']} requests, {row['failures']} failures"
    )


async def run(subjects: tuple[Subject, ...], seconds: float, which: slice) -> list[dict[str, Any]]:
    rows = []
    for subject in subjects:
        loads_rps = subject.loads_rps[which]
        by_mode = {mode: await measure(subject, mode, loads_rps, seconds) for mode in MODES}
        for at, rate_rps in enumerate(loads_rps):
            pair = {mode: by_mode[mode][at] for mode in MODES}
            rows.append({"model": subject.name, "load_rps": rate_rps, **pair, "wins": _wins(pair)})
    return rows


def _wins(pair: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Less is better but for tok_s; within five hundredths neither."""
    wins = {}
    for key, sign in (("ttft_p50_ms", 1), ("ttft_p99_ms", 1), ("token_p50_ms", 1), ("tok_s", -1)):
        one, other = (pair[mode][key] or 0.0 for mode in ("separated", "colocated"))
        near = abs(one - other) <= 0.05 * max(one, other)
        wins[key] = "neither" if near else "separated" if sign * one < sign * other else "colocated"
    return wins


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="headrace bench colocation", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
    parser.add_argument("--quick", action="store_true", help="the medium loads alone, under 60 s")
    parser.add_argument("--only", default="", help="models whose names begin with this")
    parser.add_argument("--seconds", type=float, default=20.0, help="arrivals at each load")
    args = parser.parse_args(argv)
    subjects = tuple(subject for subject in SUBJECTS if subject.name.startswith(args.only))
    seconds, which = (3.0, slice(1, 2)) if args.quick else (args.seconds, slice(None))
    rows = asyncio.run(run(subjects, seconds, which))
    for row in rows:
        say(f"{row['model']:18} {row['load_rps']:5.1f} req/s: {row['wins']}")
    if args.json:
        finish("colocation", argv, [SEED], {"colocation": rows})


if __name__ == "__main__":
    main()
