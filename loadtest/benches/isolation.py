"""A burst of pictures beside steady text: what it does to the text's time to first token, live, on profile engines.

Stages in one worker, apart, and apart with encoders that come and go. A colocated worker's device does one thing at a
time, an iteration or a batch of pictures. Pictures stand in the prompt as text of their usual length. A few come all
the time, so that how fast an encoder is has been measured when the burst begins.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from headrace.characterize import drawing
from headrace.characterize.document import Figure
from headrace.cli.plan import MeshConfig
from headrace.cli.supervisor import Mesh
from headrace.client.aio import AsyncClient
from headrace.report.chart import Mark
from loadtest.benches.asks import WORDS, Asked, ask
from loadtest.benches.report import finish, percentile, say
from loadtest.photos import photo
from loadtest.reproduce.markdown import standalone

SEED = 12
PROFILE = Path(__file__).with_suffix(".toml")
TEXT_RPS, TEXT_WORDS, TEXT_TOKENS = 6.0, 40, 16
IMAGE_RPS, IMAGE_WORDS, IMAGE_TOKENS = 6.0, 220, 16  # 1.6 s of encoding a second; about 1,250 tokens of prompt
FEW_RPS = 0.5  # pictures outside the burst
SIDE_PX = 448
PHASES = ("before", "burst", "after")
SECONDS, QUICK_SECONDS = (15.0, 30.0, 20.0), (4.0, 7.0, 4.0)
WARM_UP_S = 4.0  # not counted
# A real epoch is five minutes; the burst here lasts half a minute, so all windows are as much shorter.
SCALED = {"HEADRACE_AUTOSCALE_LOOK_S": "0.5", "HEADRACE_AUTOSCALE_EPOCH_S": "9", "HEADRACE_AUTOSCALE_START_S": "3"}


@dataclass(frozen=True, slots=True)
class Shape:
    name: str
    changes: dict[str, Any]


SHAPES = (
    Shape("colocated, 2 GPUs", {"colocate": ("encode", "prefill", "decode"), "prefill": 2}),
    Shape("apart, 2 GPUs", {"colocate": ("prefill", "decode")}),
    Shape(
        "apart, encoders autoscaled (1 to 4)",
        {
            "colocate": ("prefill", "decode"),
            "autoscale": "headrace",
            "most": {"encode": 4, "prefill": 1, "decode": 1},
        },
    ),
)


@dataclass(slots=True)
class Row:
    kind: str  # text, image
    at_s: float  # since the measurement began
    ttft_s: float
    failed: str


@dataclass(slots=True)
class Told:
    shape: Shape
    rows: list[Row] = field(default_factory=list)
    encoders: list[tuple[float, int]] = field(default_factory=list)

    def ttfts(self, kind: str, since_s: float, until_s: float) -> list[float]:
        return [
            row.ttft_s for row in self.rows if row.kind == kind and not row.failed and since_s <= row.at_s < until_s
        ]


def config(shape: Shape, directory: Path) -> MeshConfig:
    plain: dict[str, Any] = {
        "data_dir": directory,
        "engine": "profile",
        "profile": str(PROFILE),
        "model": "profile-tiny",
        "cores": len(os.sched_getaffinity(0)),
        "environment": {"HEADRACE_PREDICT": "off", **SCALED},
    }
    return MeshConfig(**plain | shape.changes)


async def measure(shape: Shape, seconds: tuple[float, ...]) -> Told:
    told = Told(shape)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as directory:
        async with Mesh(config(shape, Path(directory))) as mesh, AsyncClient(mesh.grpc_addr) as client:
            watching = asyncio.create_task(_watch(mesh, told))
            began_s = time.perf_counter() + WARM_UP_S
            whole_s, burst_from_s, burst_until_s = sum(seconds), seconds[0], seconds[0] + seconds[1]
            text = _arrivals("text", TEXT_RPS, -WARM_UP_S, whole_s)
            images = _arrivals("image", IMAGE_RPS, burst_from_s, burst_until_s)
            few = _arrivals("few", FEW_RPS, -WARM_UP_S, whole_s)
            running = [_one(client, began_s, *arrival, told) for arrival in (*text, *images, *few)]
            await asyncio.gather(*running)
            watching.cancel()
    return told


def _arrivals(kind: str, rate_rps: float, since_s: float, until_s: float) -> list[tuple[str, int, float]]:
    """A Poisson process, the same for every shape."""
    rng, at_s, found = Random(f"{SEED} {kind}"), since_s, list[tuple[str, int, float]]()
    while (at_s := at_s + rng.expovariate(rate_rps)) < until_s:
        found.append((kind, len(found), at_s))
    return found


async def _one(client: AsyncClient, began_s: float, kind: str, number: int, at_s: float, told: Told) -> None:
    rng = Random(f"{kind} {number}")
    words = TEXT_WORDS if kind == "text" else IMAGE_WORDS
    prompt = f"{number} " + " ".join(rng.choice(WORDS) for _ in range(words))
    images = [photo(Random(prompt).getrandbits(32), SIDE_PX, SIDE_PX)] if kind != "text" else []
    await asyncio.sleep(max(0.0, began_s + at_s - time.perf_counter()))
    asked: Asked = await ask(client, prompt, TEXT_TOKENS if kind == "text" else IMAGE_TOKENS, images)
    told.rows.append(Row("text" if kind == "text" else "image", at_s, asked.first_s, asked.failed))


async def _watch(mesh: Mesh, told: Told) -> None:
    began_s = time.perf_counter() + WARM_UP_S
    while True:
        encoders = [plan for plan in mesh.plans if "encode" in plan.stages]
        told.encoders.append((time.perf_counter() - began_s, len(encoders)))
        await asyncio.sleep(0.5)


def figures(told: Told, seconds: tuple[float, ...]) -> dict[str, Any]:
    """Times to first token in milliseconds, by kind and phase."""
    found: dict[str, Any] = {"shape": told.shape.name, "encoders_most": max(count for _, count in told.encoders)}
    since_s = 0.0
    for phase, lasts_s in zip(PHASES, seconds, strict=True):
        for kind in ("text", "image"):
            ttfts_s = told.ttfts(kind, since_s, since_s + lasts_s)
            if ttfts_s:
                found[f"{kind}_{phase}_p50_ms"] = round(1e3 * percentile(ttfts_s, 0.5), 1)
                found[f"{kind}_{phase}_p99_ms"] = round(1e3 * percentile(ttfts_s, 0.99), 1)
        since_s += lasts_s
    found["requests"] = len(told.rows)
    found["failures"] = dict(Counter(row.failed.partition(":")[0] for row in told.rows if row.failed))
    return found


def figure(all_told: Iterable[Told], seconds: tuple[float, ...]) -> Figure:
    """The slowest first token of the text that was asked in each second."""
    series = {}
    for told in all_told:
        slowest: dict[int, float] = {}
        for row in told.rows:
            if row.kind == "text" and row.at_s >= 0.0 and not row.failed:
                slowest[int(row.at_s)] = max(slowest.get(int(row.at_s), 0.0), row.ttft_s)
        series[told.shape.name] = [(second + 0.5, value) for second, value in sorted(slowest.items())]
    marks = (Mark(seconds[0], "pictures begin"), Mark(seconds[0] + seconds[1], "end"))
    title = "Text beside a burst of pictures: the slowest first token of each second"
    return drawing.lines(
        title, series, drawing.linear("time, s", sum(seconds)), drawing.logarithmic("TTFT of text, s"), marks=marks
    )


async def run(shapes: Iterable[Shape], seconds: tuple[float, ...]) -> list[Told]:
    found = []
    for shape in shapes:
        told = await measure(shape, seconds)
        row = figures(told, seconds)
        say(
            f"{shape.name:36} text p50/p99 before {row['text_before_p50_ms']}/{row['text_before_p99_ms']} ms, "
            f"in the burst {row['text_burst_p50_ms']}/{row['text_burst_p99_ms']} ms; images p50/p99 "
            f"{row['image_burst_p50_ms']}/{row['image_burst_p99_ms']} ms; "
            f"{row['requests']} requests, {row['failures'] or 'none'} failed"
        )
        found.append(told)
    return found


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="headrace bench isolation", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
    parser.add_argument("--quick", action="store_true", help="a burst of seven seconds, about a minute in all")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the chart there, as docs/figures/isolation.svg")
    args = parser.parse_args(argv)
    seconds = QUICK_SECONDS if args.quick else SECONDS
    all_told = asyncio.run(run(SHAPES, seconds))
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(standalone(figure(all_told, seconds)), encoding="utf-8")
    if args.json:
        rows = [figures(told, seconds) for told in all_told]
        raw = {
            told.shape.name: {"rows": [asdict(row) for row in told.rows], "encoders": told.encoders}
            for told in all_told
        }
        finish("isolation", argv, [SEED], {"isolation": rows, "seconds": seconds, "raw": raw})


if __name__ == "__main__":
    main()
