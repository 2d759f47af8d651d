"""How fast the engine decodes, with its scheduler and prefill, beside transformers' generate and vLLM, in one run.

The default model, 16 prompts of about 110 tokens, 48 new tokens each, 1, 4 and 16 at once, 2 threads. Contenders take
turns, so that all see the same machine; the best round of each counts. Then the same through a whole mesh. vLLM takes
part when VLLM_PYTHON names an interpreter that has it.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import httpx

from headrace.cli.plan import MeshConfig
from headrace.cli.supervisor import Mesh
from headrace.engines.families import ChatMessage, TextPart, family
from loadtest.benches.engine_peers import WEIGHTS_FILE, Contender, Run, contenders, hugging_face_form
from loadtest.benches.report import finish, say
from loadtest.benches.roofline import gemm_flop_per_s, read_bytes_per_s

MODEL = "smollm2-135m"
THREADS = 2
CONCURRENCIES = (1, 4, 16)
TIMEOUT_S = 120.0
SUBJECTS = (
    *("a mill race", "the tides", "sourdough bread", "the printing press", "a lighthouse", "photosynthesis"),
    *("glaciers", "the violin", "a suspension bridge", "honey bees", "the abacus", "coral reefs", "paper"),
    *("the water cycle", "a pendulum clock", "volcanoes"),
)
QUESTION = (
    "You are helping a curious student who has never heard of the subject before. Explain {} to them: what it is, "
    "where it is found, how it works and why it matters to the people who live with it. Use short sentences and "
    "everyday words, give one example that can be seen or tried at home, and end with a question that makes the "
    "student think."
)


@dataclass(frozen=True, slots=True)
class Plan:
    new_tokens: int
    rounds: int
    weights: dict[str, str]  # of our engine, by the name of the figures
    meshes: dict[str, tuple[str, ...]]  # stages that share a worker, by the name of the figures


COLOCATED = ("encode", "prefill", "decode")
FULL = Plan(
    48,
    3,
    {"headrace": "fp32", "headrace_q4": "q4", "headrace_int8": "int8"},
    {"mesh": (), "mesh_colocated": COLOCATED},
)
QUICK = Plan(12, 1, {"headrace": "fp32", "headrace_int8": "int8"}, {"mesh_colocated": COLOCATED})

Rounds = dict[str, dict[int, list[Run]]]


def questions() -> list[str]:
    return [QUESTION.format(subject) for subject in SUBJECTS]


def prompts() -> list[list[int]]:
    known = family(MODEL)
    return [list(known.render([ChatMessage("user", (TextPart(question),))], []).tokens) for question in questions()]


def measure(found: dict[str, Contender], asked: list[list[int]], new_tokens: int, rounds: int) -> Rounds:
    """Each contender in turn at each concurrency, after a first short answer that is not counted."""
    for contender in found.values():
        contender.generate(asked[:2], 4)
    runs: Rounds = {name: {c: [] for c in CONCURRENCIES} for name in found}
    for number in range(rounds):
        for c in CONCURRENCIES:
            for name, contender in found.items():
                runs[name][c].append(contender.generate(asked[:c], new_tokens))
            said = "  ".join(f"{name} {c * new_tokens / runs[name][c][-1].seconds:.1f}" for name in found)
            say(f"  round {number + 1}, {c:2} at once, tok/s: {said}")
    return runs


def rates(runs: dict[int, list[Run]], new_tokens: int) -> dict[str, float]:
    return {f"c{c}": round(c * new_tokens / min(run.seconds for run in of), 1) for c, of in runs.items()}


def ratios(ours: dict[int, list[Run]], theirs: dict[int, list[Run]]) -> dict[str, float]:
    """The median over rounds: both runs of a round saw the same machine."""
    return {
        f"c{c}": round(median(b.seconds / a.seconds for a, b in zip(ours[c], theirs[c], strict=True)), 2) for c in ours
    }


def equal_share(ours: list[list[int]], reference: list[list[int]]) -> float:
    """Share of rows that are the reference's to the last token."""
    return round(sum(a == b for a, b in zip(ours, reference, strict=True)) / len(reference), 4)


def shares(ours: dict[int, list[Run]], threads: int) -> dict[str, float]:
    """What decoding took of the machine: of its memory bandwidth alone, of its multiply-adds with 16 at once."""
    # Weights but for the file's header; the embedding table is the head too, and is read once a step.
    numbers = (hugging_face_form(MODEL) / WEIGHTS_FILE).stat().st_size // 4
    alone, many = (min(min(run.decode_steps_s) for run in ours[c]) for c in (1, 16))
    read, flop = read_bytes_per_s(threads), gemm_flop_per_s(threads)
    say(f"  {read / 1e9:.1f} GB/s read, {flop / 1e9:.0f} GFLOP/s; steps {alone * 1e3:.1f} and {many * 1e3:.1f} ms")
    return {
        "bandwidth_share_c1": round(4 * numbers / alone / read, 3),
        "gemm_share_c16": round(2 * 16 * numbers / many / flop, 3),
        "read_gb_s": round(read / 1e9, 1),
        "gemm_gflop_s": round(flop / 1e9, 1),
        "decode_step_c1_ms": round(alone * 1e3, 2),
        "decode_step_c16_ms": round(many * 1e3, 2),
    }


async def through_mesh(colocate: tuple[str, ...], threads: int, new_tokens: int, rounds: int) -> dict[str, float]:
    """tok/s of whole answers over HTTP, prompts never remembered."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as directory:
        environment = {"HEADRACE_PREFIX_CACHE_MB": "0"}
        config = MeshConfig(
            data_dir=Path(directory), model=MODEL, colocate=colocate, cores=threads, environment=environment
        )
        async with Mesh(config) as mesh, httpx.AsyncClient(base_url=mesh.http_url, timeout=TIMEOUT_S) as client:
            await _ask(client, questions()[:2], 4)
            best = {c: [await _ask(client, questions()[:c], new_tokens) for _ in range(rounds)] for c in CONCURRENCIES}
    return {f"c{c}": round(c * new_tokens / min(seconds), 1) for c, seconds in best.items()}


async def _ask(client: httpx.AsyncClient, asked: list[str], new_tokens: int) -> float:
    started = perf_counter()
    answers = await asyncio.gather(
        *(
            client.post(
                "/v1/chat/completions",
                json={
                    "model": MODEL,
                    "messages": [{"role": "user", "content": question}],
                    "max_tokens": new_tokens,
                    "temperature": 0,
                    "ignore_eos": True,
                },
            )
            for question in asked
        )
    )
    seconds = perf_counter() - started
    for answer in answers:
        made = answer.raise_for_status().json()["usage"]["completion_tokens"]
        if made != new_tokens:
            raise RuntimeError(f"asked for {new_tokens} tokens, got {made}")
    return seconds


def run(threads: int, plan: Plan, vllm_python: str) -> dict[str, Any]:
    asked, new_tokens, rounds = prompts(), plan.new_tokens, plan.rounds
    say(f"{len(asked)} prompts of {min(map(len, asked))} to {max(map(len, asked))} tokens, {new_tokens} new each")
    found = contenders(MODEL, threads, plan.weights, hugging_face_form(MODEL), vllm_python)
    try:
        runs = measure(found, asked, new_tokens, rounds)
    finally:
        for contender in found.values():
            contender.close()
    figures: dict[str, Any] = {"vllm": None, **{name: rates(of, new_tokens) for name, of in runs.items()}}
    reference = runs["transformers"][16][0].tokens
    equal = {name: equal_share(of[16][0].tokens, reference) for name, of in runs.items() if name != "transformers"}
    figures["rows_identical"] = equal
    figures["token_identical"] = equal["headrace"] == 1
    figures["times"] = {name: ratios(runs["headrace"], of) for name, of in runs.items() if name != "headrace"}
    figures |= shares(runs["headrace"], threads)
    for name, colocate in plan.meshes.items():
        figures[name] = asyncio.run(through_mesh(colocate, threads, new_tokens, rounds))
        taken = {c: round(1 - figures[name][c] / figures["headrace"][c], 3) for c in figures[name]}
        figures[f"{name}_takes"] = taken
        say(f"  {name}: {figures[name]}, takes {taken}")
    return figures


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="headrace bench engine", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
    parser.add_argument("--quick", action="store_true", help="one round of short answers, one mesh, under 60 s")
    parser.add_argument("--threads", type=int, default=THREADS, help="of every engine")
    args = parser.parse_args(argv)
    figures = run(args.threads, QUICK if args.quick else FULL, os.environ.get("VLLM_PYTHON", ""))
    for name, times in figures["times"].items():
        say(f"headrace is {times['c1']} x {name} alone, {times['c4']} x at 4, {times['c16']} x at 16")
    if args.json:
        finish("engine", argv, [], figures)


if __name__ == "__main__":
    main()
