"""What handing a KV cache over takes: mapped files, gRPC, int8 on the wire, layers that travel while others compute.

A transfer is all that stands between two engines: written, summed up, told of, pulled, verified and copied into place;
beside it a plain copy of as many bytes. The owner is a process of its own.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from headrace.cli.plan import MeshConfig
from headrace.cli.supervisor import Mesh
from headrace.client.aio import AsyncClient
from headrace.core.types import TensorHandle
from headrace.mesh import rpc
from headrace.mesh.transfer import Tensor, TensorStore
from loadtest.benches.asks import WORDS, Asked, ask
from loadtest.benches.kv_agreement import agreement, packing
from loadtest.benches.report import finish, percentile, say

SIZES_MIB = (1, 4, 16, 64, 256, 1024)
TIMES = 5
HOST = "bench"
SHM = Path("/dev/shm")
ASKS = 12
WAYS = ("auto", "grpc")  # HEADRACE_TRANSFER: one host, and as between hosts
QUICK_SIZES_MIB = (1, 16, 64)
# (model, engine, profile, words of the prompt)
SMALL = ("smollm2-135m", "onnx", "", 150)
LARGE = ("profile-tiny", "profile", "h100-qwen3-8b", 60)  # a token a letter: 50 MB


# --- the owner's process ---


async def own(directory: Path) -> None:
    """For each line with a size on standard input: a tensor, described in one line; an empty line drops it."""
    store = TensorStore(directory, "prefill-0", "bench", HOST)
    server = await rpc.serve("127.0.0.1:0", store.servicer().add_to, ["headrace.v1.TransferService"])
    store.grpc_address = f"127.0.0.1:{server.port}"
    source, made = np.zeros(0, np.uint8), ""
    while line := await asyncio.to_thread(sys.stdin.readline):
        if made:
            store.drop(made)
        made = ""
        if not line.strip():
            continue
        size = int(line)
        if len(source) != size:
            source = np.random.default_rng(1).integers(0, 255, size, np.uint8)
        began_s = time.perf_counter()
        draft = store.create("kv.bench.1", size)
        np.frombuffer(draft.buffer, np.uint8)[:] = source
        draft.ready(size)
        handle = store.seal(draft, Tensor("uint8", (size,), "bench", 1))
        made = handle.id
        print(json.dumps({"s": time.perf_counter() - began_s, "handle": asdict(handle)}), flush=True)
    await server.stop(0.0)
    await store.close()


class Owner:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def make(self, size: int) -> tuple[float, TensorHandle]:
        """Seconds it took, and where it is; it takes the place of the one before."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"\n{size}\n".encode())
        told = json.loads(await self._process.stdout.readline())
        return told["s"], TensorHandle(**(told["handle"] | {"shape": tuple(told["handle"]["shape"])}))


@asynccontextmanager
async def owner(directory: Path) -> AsyncIterator[Owner]:
    command = (sys.executable, "-m", "loadtest.benches.handover", "--own", str(directory))
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    try:
        yield Owner(process)
    finally:
        process.stdin.close()
        await process.wait()


# --- transfers ---


async def transfers(sizes_mib: tuple[int, ...]) -> dict[str, list[dict[str, float]]]:
    rows: dict[str, list[dict[str, float]]] = {"shm": [], "grpc": [], "memcpy": []}
    with tempfile.TemporaryDirectory(prefix="headrace-bench-", dir=SHM if SHM.is_dir() else None) as name:  # noqa: ASYNC240
        directory = Path(name)
        readers = {
            "shm": TensorStore(directory, "decode-0", "a", HOST),
            "grpc": TensorStore(directory, "decode-1", "a", HOST, force_grpc=True),
        }
        async with owner(directory) as prefill:
            for mib in sizes_mib:
                into = np.ones(mib << 20, np.uint8)
                for way, reader in readers.items():
                    rows[way].append(_row(mib, [await _transfer(prefill, reader, into) for _ in range(TIMES)]))
                rows["memcpy"].append(_row(mib, [_memcpy(into) for _ in range(TIMES)]))
                say(f"  {mib:5} MiB: " + ", ".join(f"{way} {rows[way][-1]['ms']:.1f} ms" for way in rows))
        for reader in readers.values():
            await reader.close()
    return rows


async def _transfer(prefill: Owner, reader: TensorStore, into: np.ndarray[Any, np.dtype[np.uint8]]) -> float:
    made_s, handle = await prefill.make(into.nbytes)
    began_s = time.perf_counter()
    fetched = await reader.fetch(handle)
    into[:] = np.frombuffer(fetched.buffer, np.uint8)
    fetched.close()
    return made_s + time.perf_counter() - began_s


def _memcpy(into: np.ndarray[Any, np.dtype[np.uint8]]) -> float:
    source = into.copy()
    began_s = time.perf_counter()
    into[:] = source
    return time.perf_counter() - began_s


def _row(mib: int, took_s: list[float]) -> dict[str, float]:
    """The median; the first time, when pages are made, stands apart."""
    median_s = percentile(took_s[1:], 0.5)
    return {
        "mib": mib,
        "ms": round(1e3 * median_s, 3),
        "gib_s": round(mib / 1024 / median_s, 3),
        "first_ms": round(1e3 * took_s[0], 3),
    }


# --- through a mesh ---


async def pipelining(subjects: tuple[tuple[str, str, str, int], ...], asks: int) -> list[dict[str, Any]]:
    """One request at a time, so that nothing hides behind anything else."""
    rows = []
    for model, engine, profile, words in subjects:
        for way in WAYS:
            for pipeline in ("off", "on"):
                environment = {"HEADRACE_KV_PIPELINE": pipeline, "HEADRACE_TRANSFER": way}
                with tempfile.TemporaryDirectory(prefix="headrace-bench-") as directory:
                    shape = MeshConfig(
                        data_dir=Path(directory), engine=engine, profile=profile, model=model, environment=environment
                    )
                    async with Mesh(shape) as mesh, AsyncClient(mesh.grpc_addr) as client:
                        answers = [await ask(client, _prompt(words, at), 4) for at in range(asks + 2)][2:]
                rows.append(
                    {"model": profile or model, "transfer": way, "pipeline": pipeline, **_second(answers)},
                )
                say(f"  {rows[-1]}")
    return rows


def _prompt(words: int, number: int) -> str:
    """Its beginning is its own: nothing is found in a prefix cache."""
    return f"{number} " + " ".join(WORDS[(number + at) % len(WORDS)] for at in range(words))


def _second(answers: list[Asked]) -> dict[str, float]:
    """The share is of the time to the second token, which is the first that waits for the transfer."""
    assert not any(answer.failed for answer in answers), answers
    first_s = percentile([answer.first_s for answer in answers], 0.5)
    second_s = percentile([answer.second_s for answer in answers], 0.5)
    transfer_s = percentile([answer.stages.get("transfer", 0.0) for answer in answers], 0.5)
    share = percentile([answer.stages.get("transfer", 0.0) / answer.second_s for answer in answers], 0.5)
    return {
        "ttft_ms": round(1e3 * first_s, 2),
        "second_token_ms": round(1e3 * second_s, 2),
        "first_to_second_ms": round(1e3 * percentile([a.second_s - a.first_s for a in answers], 0.5), 2),
        "transfer_ms": round(1e3 * transfer_s, 2),
        "transfer_share": round(share, 4),
    }


async def run(quick: bool, parts: set[str]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    if "transfers" in parts:
        say("transfers (median; written, summed up, pulled, verified, copied):")
        figures |= await transfers(QUICK_SIZES_MIB if quick else SIZES_MIB)
    if "int8" in parts:
        figures["int8"] = packing() | agreement(4 if quick else 16, 16 if quick else 48)
        say(f"int8: {figures['int8']}")
    if "pipelined" in parts:
        say("one request at a time through a mesh (medians):")
        figures["pipelined"] = await pipelining((LARGE,) if quick else (SMALL, LARGE), 4 if quick else ASKS)
    return figures


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="headrace bench handover", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
    parser.add_argument("--quick", action="store_true", help="fewer sizes and questions, under 60 s")
    parser.add_argument("--part", choices=["transfers", "int8", "pipelined"], help="this one alone")
    parser.add_argument("--own", type=Path, help=argparse.SUPPRESS)  # the owner's process
    args = parser.parse_args(argv)
    if args.own is not None:
        asyncio.run(own(args.own))
        return
    parts = {args.part} if args.part else {"transfers", "int8", "pipelined"}
    figures = asyncio.run(run(args.quick, parts))
    if args.json:
        finish("handover", argv, [], figures)


if __name__ == "__main__":
    main()
