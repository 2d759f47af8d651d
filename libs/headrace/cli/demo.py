"""`headrace demo`: a mesh from nothing, real questions, where the time of each went, and everything stopped again."""

import argparse
import asyncio
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from headrace.cli.chat import media_summary
from headrace.cli.options import add_mesh, mesh_config
from headrace.cli.questions import Question, all_at_once, one_by_one
from headrace.cli.supervisor import Mesh, MeshFailed
from headrace.cli.view import Console
from headrace.client import AsyncClient, AsyncStream, HeadraceError, Message
from headrace.mesh.errors import BadSetup


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_mesh(parser)


def run(args: argparse.Namespace) -> int:
    console = Console()
    with tempfile.TemporaryDirectory(prefix="headrace-demo-") as folder:
        args.data_dir = Path(folder)
        return asyncio.run(_demo(args, console))


async def _demo(args: argparse.Namespace, console: Console) -> int:
    config = replace(mesh_config(args, tethered=True), restart=False)
    console.step("starting NATS, Redis and six services (the first start ever also builds the model's graph)")
    try:
        async with Mesh(config, console.step) as mesh:
            console.step(f"asking at {mesh.grpc_addr} (gRPC); HTTP for OpenAI clients is at {mesh.http_url}/v1")
            async with AsyncClient(mesh.grpc_addr, trace=True) as client:
                await _ask_all(client, console)
            console.title("Done; stopping")
    except (MeshFailed, BadSetup, HeadraceError, OSError) as error:
        console.error(str(error))
        return 1
    console.step("everything is stopped. Keep a mesh with: make up; ask it with: headrace chat")
    return 0


async def _ask_all(client: AsyncClient, console: Console) -> None:
    for name, question in one_by_one():
        console.title(name)
        console.plain(f"  > {question.shown}")
        began_s = time.monotonic()
        stream = _ask(client, question)
        console.stream("  < ")
        async for delta in stream:
            console.stream(delta.text.replace("\n", "\n    "))
        console.plain("")
        _tell(console, stream, time.monotonic() - began_s)
    console.title("several at once")
    await asyncio.gather(*(_answer(client, console, question) for question in all_at_once()))


async def _answer(client: AsyncClient, console: Console, question: Question) -> None:
    """Shown whole, since their pieces come mixed; the timelines show that they overlapped."""
    began_s = time.monotonic()
    stream = _ask(client, question)
    text = await stream.text()
    console.plain(f"  > {question.shown}")
    console.plain("  < " + text.replace("\n", "\n    "))
    _tell(console, stream, time.monotonic() - began_s)


def _ask(client: AsyncClient, question: Question) -> AsyncStream:
    return client.generate([Message("user", question.parts)], max_tokens=question.max_tokens, temperature=0.0)


def _tell(console: Console, stream: AsyncStream, took_s: float) -> None:
    usage = stream.usage
    console.timeline(stream.timeline)
    console.note(
        f"  {took_s:.2f} s, {usage.prompt_tokens} tokens in ({media_summary(usage) or 'text alone'}), "
        f"{usage.completion_tokens} out; trace {stream.trace_id}"
    )
    console.plain("")
