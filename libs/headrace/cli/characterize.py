"""`headrace characterize`: where a model's time goes, stage by stage, or what a trace's traffic is like.

From cost profiles (the default), from the running mesh (--live), or from a trace (--trace).
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any, TextIO

from headrace.characterize import page, paper, screen
from headrace.characterize.document import Document
from headrace.characterize.errors import LiveError
from headrace.cli.options import DATA_DIR
from headrace.profiles import ProfileError
from headrace.report.provenance import plain, provenance
from headrace.workload.tables import ScenarioError
from headrace.workload.traces import FORMATS, TraceError

MODEL = "llama-3.2-11b-vision"
SEED = 1
_MISTAKES = (ProfileError, ScenarioError, TraceError, LiveError)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    profiles = parser.add_argument_group("from profiles, computed and simulated")
    profiles.add_argument("--model", action="append", default=[], help=f"once for each; {MODEL}, unless said")
    profiles.add_argument("--paper", action="store_true", help="the six models of the ModServe paper")
    profiles.add_argument("--gpu", default="a100", help="a100, h100, a10, ...")
    profiles.add_argument("--gpus", type=_positive, default=0, help="tensor parallelism; the paper's, unless said")
    profiles.add_argument("--link", default="infiniband", help="between encoder and LLM: nvlink, infiniband, ...")
    profiles.add_argument("--image", type=_size, default=paper.IMAGE_PX, metavar="WxH", help="896x896, unless said")
    profiles.add_argument("--text-tokens", type=_positive, default=128, help="beside the image")
    profiles.add_argument("--llm", default="", metavar="FILE", help="your own instance profile, of the one model")
    profiles.add_argument("--encoder", default="", metavar="FILE", help="your own encoder profile")
    profiles.add_argument("--no-simulation", action="store_true", help="leave out interference, which takes longest")
    live = parser.add_argument_group("measured on the running mesh")
    live.add_argument("--live", action="store_true", help="ask the mesh of --data-dir, for a minute or two")
    live.add_argument("--data-dir", type=Path, default=DATA_DIR, help="of the mesh")
    trace = parser.add_argument_group("from a trace, counted")
    trace.add_argument("--trace", type=Path, help="a recorded trace")
    trace.add_argument("--format", choices=tuple(FORMATS), help="of the trace")
    parser.add_argument("--quick", action="store_true", help="fewer requests, live and simulated")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--report", type=Path, help="write one HTML page, with charts")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line; all else to stderr")


def run(args: argparse.Namespace) -> int:
    out = sys.stderr if args.json else sys.stdout
    try:
        found = _document(args)
    except (*_MISTAKES, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return _tell(found, args, out)


def _document(args: argparse.Namespace) -> Document:
    asked = [name for name in ("live", "trace", "paper", "model") if getattr(args, name)]
    if len(asked) > 1 and asked != ["paper", "model"]:
        raise ScenarioError(f"--{asked[0]} and --{asked[1]}: one of them at a time")
    if args.trace is not None:
        return _of_trace(args)
    if args.live:
        return asyncio.run(_of_mesh(args))
    return _of_profiles(args)


def _of_trace(args: argparse.Namespace) -> Document:
    from headrace.characterize import trace, traffic
    from headrace.workload.traces import Tally, load

    if args.format is None:
        raise TraceError(f"--format is missing: which of {', '.join(FORMATS)} is {args.trace.name}?")
    tally = Tally()
    stats, seen = traffic.look(load(args.trace, args.format, tally=tally))
    if stats.requests < 2:
        raise TraceError(f"{args.trace.name}: {stats.requests} requests are no traffic")
    return trace.document(args.trace.name, stats, seen, tally)


async def _of_mesh(args: argparse.Namespace) -> Document:
    from headrace.characterize import live, measured
    from headrace.cli import runstate
    from headrace.client import operator

    state = runstate.running(args.data_dir)
    if state is None:
        raise LiveError(runstate.NO_MESH)
    door = runstate.door(state)
    cell = await operator.cell_status(state.services["qm-0"])
    workers = [(entry.worker, list(entry.stages)) for entry in cell.workers]
    encoding = [stages for _, stages in workers if "encode" in stages]
    shared = [stages for stages in encoding if len(stages) > 1]
    layout = "encoders share processes with other stages" if shared else "encoders stand apart"

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    found = await live.measure(state.grpc_addresses, live.QUICK if args.quick else live.Plan(), args.seed, say, door)
    told = [f"{worker} ({', '.join(stages)})" for worker, stages in sorted(workers)]
    return measured.document(found, told, layout if encoding else "no encoders")


def _of_profiles(args: argparse.Namespace) -> Document:
    from headrace.characterize import models, parts
    from headrace.characterize.cost import Shown
    from headrace.report.progress import Bar

    names = list(dict.fromkeys([*(paper.MODELS if args.paper else ()), *args.model])) or [MODEL]
    if (args.llm or args.encoder) and len(names) > 1:
        raise ProfileError("--llm and --encoder are of one model: name it with --model")
    own = {"link": args.link, "gpus": args.gpus, "llm": args.llm, "tower": args.encoder}
    found = [parts.read(name, args.gpu, **own) for name in names]
    width, height = args.image
    shown = Shown(width, height, args.text_tokens)
    mixes = [] if args.no_simulation else models.plan(found, shown, args.seed, quick=args.quick)
    if not mixes:
        return models.document(found, shown, [])
    with Bar(len(mixes)) as bar:
        return models.document(found, shown, mixes, seen=bar.seen, going=bar.going)


def _tell(found: Document, args: argparse.Namespace, out: TextIO) -> int:
    told = provenance(["headrace", *sys.argv[1:]], [args.seed])
    screen.show(found, out)
    if args.report is not None:
        args.report.write_text(page.html(found, told), encoding="utf-8")
        print(f"\nreport: {args.report}", file=out)
    if args.json:
        line: dict[str, Any] = {**told.head(), **plain(found.data)}
        print(json.dumps(line), flush=True)
    return 0


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT in pixels, such as 896x896")
    return int(width), int(height)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value
