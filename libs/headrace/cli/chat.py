"""`headrace chat "..." --image a.png --audio b.wav --video c.mp4`: one question to a mesh, the answer as it comes."""

import argparse
import sys
import time
from pathlib import Path

from headrace.cli import likelihood, runstate
from headrace.cli.options import add_data_dir
from headrace.cli.view import Console
from headrace.client import Audio, Client, Door, HeadraceError, Image, Message, Stream, TokenLogprobs, Video
from headrace.client.types import Usage

_KINDS: dict[str, type[Image | Audio | Video]] = {"image": Image, "audio": Audio, "video": Video}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("question")
    for name in _KINDS:
        parser.add_argument(f"--{name}", type=Path, action="append", default=[], metavar="FILE", help="may be repeated")
    parser.add_argument("--system", default="", help="a system message")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="", help="one of the mesh's models; else its default")
    parser.add_argument("--slo-class", default="", help="interactive, batch-1, batch-2, or what is configured")
    parser.add_argument("--priority", type=int, default=0, metavar="N", help="-3 to 3, higher is sooner")
    parser.add_argument("--ttft-target", type=float, default=0.0, metavar="S", help="seconds to the first token")
    parser.add_argument("--flow", default="", metavar="NAME", help="whose share the question counts against")
    parser.add_argument("--logprobs", type=int, metavar="N", help="how likely each token was, and the N likeliest")
    parser.add_argument("--timeline", action="store_true", help="show where the time went")
    parser.add_argument("--server", default="", help="host:port of a gateway's gRPC; else the mesh of --data-dir")
    add_data_dir(parser)


def run(args: argparse.Namespace) -> int:
    console = Console()
    addresses = [args.server] if args.server else _addresses(args.data_dir)
    if not addresses:
        console.error(runstate.NO_MESH)
        return 1
    try:
        media = [kind.read(path) for name, kind in _KINDS.items() for path in getattr(args, name)]
    except OSError as error:
        console.error(f"{error.filename}: {error.strerror}")
        return 1
    messages = [Message("system", args.system)] if args.system else []
    messages.append(Message("user", [*media, args.question]))
    door = Door.of_env()
    with Client(addresses, trace=args.timeline, tls=door) as client:
        return _ask(console, client, messages, args)


def _addresses(data_dir: Path) -> list[str]:
    state = runstate.running(data_dir)
    if state is None:
        return []
    runstate.enter(state)
    return list(state.grpc_addresses)


def _ask(console: Console, client: Client, messages: list[Message], args: argparse.Namespace) -> int:
    began_s = time.monotonic()
    stream = client.generate(
        messages,
        max_tokens=args.max_tokens,
        temperature=args.temperature,
        seed=args.seed,
        model=args.model,
        slo_class=args.slo_class,
        priority=args.priority,
        ttft_target_s=args.ttft_target,
        flow=args.flow,
        logprobs=args.logprobs,
    )
    try:
        told = _show(console, stream)
    except HeadraceError as error:
        console.plain("")
        console.error(f"{error} ({error.code})")
        return 1
    except KeyboardInterrupt:
        stream.cancel()
        raise
    if args.logprobs is not None:
        console.table("tokens", likelihood.COLUMNS, likelihood.rows(told))
    if args.timeline:
        console.timeline(stream.timeline)
        console.note(f"{summary(stream, time.monotonic() - began_s)}; trace {stream.trace_id or 'not sampled'}")
    return 0


def _show(console: Console, stream: Stream) -> list[TokenLogprobs]:
    """The answer as it comes; returns what is told of its tokens, if that was asked for."""
    told = list[TokenLogprobs]()
    for delta in stream:
        console.stream(delta.text)
        told += delta.logprobs
    console.plain("")
    sys.stdout.flush()
    return told


def summary(stream: Stream, took_s: float) -> str:
    usage = stream.usage
    media = media_summary(usage)
    inside = f" ({media})" if media else ""
    return f"{usage.prompt_tokens} prompt tokens{inside}, {usage.completion_tokens} answered in {took_s:.2f} s"


def media_summary(usage: Usage) -> str:
    """What of the prompt is media; empty if nothing is."""
    counts = {"images": usage.image_tokens, "audio": usage.audio_tokens, "video": usage.video_tokens}
    return ", ".join(f"{count} of {kind}" for kind, count in counts.items() if count)
