"""The chaos matrix: every process at every named transition, killed or stopped for ten seconds; and the servers.

`make test` runs one transition per process and fault, drawn by seed; `python -m tests.chaos.matrix` runs them all and
writes the table.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from headrace.cli.supervisor import Mesh
from headrace.mesh.faults import TRANSITIONS
from tests.chaos.faults import Fault, Verdict, inject
from tests.e2e.meshes import chaos_mesh

# The room of a transition's name -> the process that crosses it.
PROCESSES = {
    "gateway": "gateway-0",
    "queue": "qm-0",
    "encode": "encoder-0",
    "prefill": "prefill-0",
    "decode": "decode-0",
}
# These come about with a planner alone, which the chaos mesh does not have: tests/worker kills there.
OPERATIONS = frozenset(
    {
        *(f"queue.{name}" for name in ("evict_sent", "evicted", "resume_sent", "move_sent", "load_sent")),
        *(f"decode.{name}" for name in ("evicting", "evicted", "resuming", "resumed", "moved")),
    }
)
SERVER_FAULTS = (
    Fault("nats-server", "restart"),
    Fault("nats-server", "kill"),
    Fault("redis-server", "restart"),
    Fault("redis-server", "kill"),
    Fault("redis-server", "flushall"),
)


def transitions_of(process: str) -> list[str]:
    room = next(room for room, name in PROCESSES.items() if name == process)
    return sorted(name for name in TRANSITIONS if name.startswith(room + ".") and name not in OPERATIONS)


def drawn(seed: int) -> list[Fault]:
    """One transition per process and action."""
    rng = random.Random(seed)
    return [
        Fault(process, action, rng.choice(transitions_of(process)), rng.randint(2, 9))
        for action in ("kill", "stop")
        for process in PROCESSES.values()
    ]


def everything(seed: int) -> list[Fault]:
    rng = random.Random(seed)
    named = [
        Fault(process, action, transition, rng.randint(2, 9))
        for process in PROCESSES.values()
        for transition in transitions_of(process)
        for action in ("kill", "stop")
    ]
    return [*named, *SERVER_FAULTS]


async def run(faults: list[Fault], seed: int, folder: Path) -> list[Verdict]:
    """All of them against one mesh, one after another."""
    verdicts: list[Verdict] = []
    async with Mesh(chaos_mesh(folder)) as mesh:
        for fault in faults:
            verdict = await inject(mesh, fault, seed + len(verdicts))
            verdicts.append(verdict)
            say(verdict.line())
    return verdicts


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(verdicts: list[Verdict]) -> str:
    head = (
        "| process | fault | transition | landed | requests | ended once | faults | broken streams | longest pause s |"
    )
    rows = [head, "|---|---|---|---|---|---|---|---|---|"]
    return "\n".join([*rows, *(verdict.row() for verdict in verdicts)])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="processes or transitions that begin with this")
    parser.add_argument("--data-dir", type=Path, help="where the mesh keeps its logs; else they go with it")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    args = parser.parse_args(argv)
    chosen = [fault for fault in everything(args.seed) if args.only in f"{fault.process} {fault.transition}"]
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="headrace-chaos-") as folder:
        verdicts = asyncio.run(run(chosen, args.seed, args.data_dir or Path(folder)))
    print(table(verdicts))
    bad = [verdict for verdict in verdicts if not verdict.good]
    say(f"{len(verdicts) - len(bad)} of {len(verdicts)} faults survived in {time.monotonic() - began_s:.0f} s")
    if args.json:
        print(json.dumps({"seed": args.seed, "faults": len(verdicts), "bad": [verdict.line() for verdict in bad]}))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
