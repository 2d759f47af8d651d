"""Overlap of encode and prefill on a live mesh: eight pictures a request, with it and without in turns, side by side.

`python -m loadtest.benches.overlap_live`. Real processes, bus and journal; encoder and engine sleep for what InternViT
on one A100 and InternLM2.5-20B on four take (the simulator's profiles: 0.135 s and 0.07 s a picture of 896 x 896). The
queue manager starts anew with HEADRACE_OVERLAP on or off for each block of requests; the tokens must be the same.
"""

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path
from random import Random

from headrace.cli.plan import MeshConfig
from headrace.cli.supervisor import Mesh
from headrace.client import Image, Message
from headrace.client.aio import AsyncClient
from loadtest.benches.report import finish, percentile, say
from loadtest.photos import photo

PICTURES = 8
# A picture of this family is six tokens and two around it: sixteen tokens are two pictures, and a chunk.
PROFILE = """source = "[I] a picture takes what InternVL-2.5-26B's takes on A100s, in the simulator's profiles"
kv_bytes_per_token = 256
chunk_tokens = 16

[cost]
tokens = [0, 16]
tokens_s = [0.010, 0.150]

[encode]
token_s = 0.0225 # 0.135 s a picture
"""
Answers = dict[int, list[int]]


async def ask(client: AsyncClient, number: int, answers: Answers) -> float:
    """Seconds to the first token; the tokens must be those of the last time."""
    images = [Image(photo(PICTURES * number + part, 64, 64)) for part in range(PICTURES)]
    message = Message("user", [*images, f"what do they show, and why? {number}"])
    began_s, first_s, tokens = time.perf_counter(), 0.0, list[int]()
    async for delta in client.generate([message], max_tokens=8, temperature=0.0, ignore_eos=True):
        tokens += delta.tokens
        if tokens and not first_s:
            first_s = time.perf_counter() - began_s
    assert answers.setdefault(number, tokens) == tokens, f"other tokens for question {number}"
    return first_s


async def block(mesh: Mesh, overlap: str, rate_rps: float, count: int, first: int, answers: Answers) -> list[float]:
    """A Poisson process of requests; the same ones at the same times for the same `first`."""
    await mesh.restart("qm-0", {"HEADRACE_OVERLAP": overlap})
    await mesh.until_servable()
    await asyncio.sleep(2.0)
    rng, asking = Random(first), list[asyncio.Task[float]]()
    async with AsyncClient(mesh.grpc_addr) as client:
        for number in range(first, first + count):
            asking.append(asyncio.create_task(ask(client, number, answers)))
            await asyncio.sleep(rng.expovariate(rate_rps))
        return list(await asyncio.gather(*asking))


async def measure(directory: Path, encoders: int, rates_rps: list[float], blocks: int, count: int) -> list[str]:
    profile = directory / "profile.toml"
    profile.write_text(PROFILE)
    config = MeshConfig(
        data_dir=directory,
        engine="profile",
        model="profile-tiny",
        profile=str(profile),
        encoders=encoders,
        cores=len(os.sched_getaffinity(0)),
        environment={"HEADRACE_ENCODER_CACHE_MB": "0", "HEADRACE_PREFIX_CACHE_MB": "0"},
    )
    rows, answers = list[str](), Answers()
    async with Mesh(config) as mesh:
        for rate_rps in rates_rps:
            seen: dict[str, list[float]] = {"off": [], "on": []}
            for number in range(blocks):
                for overlap in ("off", "on") if number % 2 else ("on", "off"):
                    seen[overlap] += await block(mesh, overlap, rate_rps, count, number * count, answers)
            rows.append(row(encoders, rate_rps, seen["off"], seen["on"]))
            say(rows[-1])
    return rows


def row(encoders: int, rate_rps: float, off: list[float], on: list[float]) -> str:
    means = [sum(values) / len(values) for values in (off, on)]
    tails = [percentile(values, 0.99) for values in (off, on)]
    cells = (encoders, rate_rps, len(on), f"{means[0]:.2f} → {means[1]:.2f}", f"{tails[0]:.2f} → {tails[1]:.2f}")
    return "| " + " | ".join(map(str, cells)) + f" | {means[1] / means[0] - 1:+.0%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoders", type=int, default=2)
    parser.add_argument("--rates", default="0.2,0.5,0.9", help="requests/s; two encoders serve 1.85")
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--count", type=int, default=10, help="requests of a block")
    args = parser.parse_args()
    say("| encoders | requests/s | requests of each | TTFT mean s | p99 s | mean |\n|---|---|---|---|---|---|")
    rates_rps = [float(rate) for rate in args.rates.split(",")]
    with tempfile.TemporaryDirectory(prefix="headrace-overlap-") as folder:
        rows = asyncio.run(measure(Path(folder), args.encoders, rates_rps, args.blocks, args.count))
    finish("overlap-live", [], list(range(args.blocks)), {"rows": rows})


if __name__ == "__main__":
    main()
