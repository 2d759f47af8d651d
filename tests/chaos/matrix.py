"""The chaos matrix: every process at every named transition, killed or stopped for ten seconds; and the servers.

Three meshes: `stages` crosses what every request crosses, `operations` what a planner does to requests that run,
`overlap` what happens while prefill runs ahead of encoding. `make test` runs a few transitions of each, drawn by seed;
`python -m tests.chaos.matrix` runs them all and writes the tables.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from headrace.cli.plan import MeshConfig
from headrace.cli.supervisor import Mesh
from headrace.mesh.faults import TRANSITIONS
from tests.chaos.faults import STAGES, Fault, Load, Trial, Verdict
from tests.chaos.operations import LOAD, operations_mesh
from tests.chaos.overlap import LOAD as OVERLAP_LOAD
from tests.chaos.overlap import overlap_mesh
from tests.e2e.meshes import chaos_mesh

# The room of a transition's name -> the process that crosses it.
PROCESSES = {
    "gateway": "gateway-0",
    "queue": "qm-0",
    "encode": "encoder-0",
    "prefill": "prefill-0",
    "decode": "decode-0",
}
# These come about with a planner alone. The worker of their mesh prefills and decodes.
OPERATIONS = {
    "qm-0": tuple(f"queue.{name}" for name in ("evict_sent", "evicted", "resume_sent", "move_sent", "load_sent")),
    "worker-0": (
        *(f"decode.{name}" for name in ("evicting", "evicted", "resuming", "resumed", "moved")),
        *(f"worker.{name}" for name in ("loading", "loaded")),
    ),
}
# These come about with several pictures and slow encoders alone; and those of an encoder hit other requests there.
OVERLAPS = {
    "qm-0": ("queue.parts_sent",),
    "prefill-0": ("prefill.fed",),
    "encoder-0": ("encode.received", "encode.encoded", "encode.published"),
}
# What `make test` draws one of each from: the queue manager at any, a worker in an eviction, a restore, a swap. A move
# away from one worker takes long to come: it is left to the matrix.
DRAWN_OPERATIONS = {
    "qm-0": (OPERATIONS["qm-0"],),
    "worker-0": (
        ("decode.evicting", "decode.evicted"),
        ("decode.resuming", "decode.resumed"),
        ("worker.loading", "worker.loaded"),
    ),
}
# At which crossing a process is hit, at most: what every request crosses comes soon, operations now and then.
CROSSINGS_MAX, OPERATIONS_MAX = 9, 2
RARE = ("queue.move_sent", "decode.moved")  # the first one is waited for


SERVER_FAULTS = (
    Fault("nats-server", "restart"),
    Fault("nats-server", "kill"),
    Fault("redis-server", "restart"),
    Fault("redis-server", "kill"),
    Fault("redis-server", "flushall"),
)


def transitions_of(process: str) -> list[str]:
    room = next(room for room, name in PROCESSES.items() if name == process)
    apart = {name for names in OPERATIONS.values() for name in names} | {"queue.parts_sent", "prefill.fed"}
    return sorted(name for name in TRANSITIONS if name.startswith(room + ".") and name not in apart)


def drawn(seed: int) -> list[Fault]:
    """One transition per process and action."""
    rng = random.Random(seed)
    return [
        Fault(process, action, rng.choice(transitions_of(process)), rng.randint(2, CROSSINGS_MAX))
        for action in ("kill", "stop")
        for process in PROCESSES.values()
    ]


def drawn_operations(seed: int) -> list[Fault]:
    """Each at its first crossing: that takes two or three seconds to come."""
    rng = random.Random(seed)
    return [
        Fault(process, "kill", rng.choice(transitions))
        for process, kinds in DRAWN_OPERATIONS.items()
        for transitions in kinds
    ]


def drawn_overlaps(seed: int) -> list[Fault]:
    """Each process killed."""
    rng = random.Random(seed)
    return [
        Fault(process, "kill", rng.choice(transitions), rng.randint(2, CROSSINGS_MAX))
        for process, transitions in OVERLAPS.items()
    ]


def all_overlaps(seed: int) -> list[Fault]:
    rng = random.Random(seed)
    return [
        Fault(process, action, transition, rng.randint(2, CROSSINGS_MAX))
        for process, transitions in OVERLAPS.items()
        for transition in transitions
        for action in ("kill", "stop")
    ]


def everything(seed: int) -> list[Fault]:
    rng = random.Random(seed)
    named = [
        Fault(process, action, transition, rng.randint(2, CROSSINGS_MAX))
        for process in PROCESSES.values()
        for transition in transitions_of(process)
        for action in ("kill", "stop")
    ]
    return [*named, *SERVER_FAULTS]


def all_operations(seed: int) -> list[Fault]:
    rng = random.Random(seed)
    named = [
        Fault(process, action, transition, rng.randint(1, 1 if transition in RARE else OPERATIONS_MAX))
        for process, transitions in OPERATIONS.items()
        for transition in transitions
        for action in ("kill", "stop")
    ]
    return [*named, *SERVER_FAULTS]


@dataclass(frozen=True, slots=True)
class Part:
    """Of the matrix: faults against one mesh, one after another."""

    faults: Callable[[int], list[Fault]]
    mesh: Callable[[Path], MeshConfig]
    load: Load


PARTS = {
    "stages": Part(everything, chaos_mesh, STAGES),
    "operations": Part(all_operations, operations_mesh, LOAD),
    "overlap": Part(all_overlaps, overlap_mesh, OVERLAP_LOAD),
}


async def run(part: Part, faults: list[Fault], seed: int, folder: Path) -> list[Verdict]:
    verdicts: list[Verdict] = []
    async with Mesh(part.mesh(folder)) as mesh:
        trial = Trial(mesh, part.load)
        for fault in faults:
            verdict = await trial.inject(fault, seed + len(verdicts))
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
    parser.add_argument("--mesh", choices=PARTS, help="this part alone")
    parser.add_argument("--only", default="", help="processes or transitions that begin with this")
    parser.add_argument("--data-dir", type=Path, help="where the meshes keep their logs; else they go with them")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    args = parser.parse_args(argv)
    began_s = time.monotonic()
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix="headrace-chaos-") as folder:
        for name in [args.mesh] if args.mesh else PARTS:
            chosen = [fault for fault in PARTS[name].faults(args.seed) if args.only in fault.name]
            if chosen:
                done = asyncio.run(run(PARTS[name], chosen, args.seed, (args.data_dir or Path(folder)) / name))
                print(table(done))
                verdicts += done
    bad = [verdict for verdict in verdicts if not verdict.good]
    say(f"{len(verdicts) - len(bad)} of {len(verdicts)} faults survived in {time.monotonic() - began_s:.0f} s")
    if args.json:
        print(json.dumps({"seed": args.seed, "faults": len(verdicts), "bad": [verdict.line() for verdict in bad]}))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
