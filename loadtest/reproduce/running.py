"""What every reproduction is started with, and how its report is written: a page of tables and charts, one JSON object.

A reproduction is `loadtest/reproduce/<name>.py` with `main(argv)`, which calls run() with its own measure().
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headrace.characterize import screen
from headrace.characterize.document import Document
from headrace.report.provenance import plain, provenance
from loadtest.reproduce import markdown

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs" / "reproduce"
SEEDS, QUICK_SEEDS = 20, 3
_FILES = ("--rows", "--data")  # options that take one


@dataclass(frozen=True, slots=True)
class Options:
    seeds: tuple[int, ...]
    quick: bool  # ends within a minute on two cores
    data: Path  # recorded traces; a reproduction says what it does without
    rows: Path | None  # where finished runs are kept, so that a stopped one goes on
    processes: int  # 0: one a core
    live: bool = False  # also a small scenario on a real mesh of this machine
    scale: float = 0.0  # of the fleet; 0: as the reproduction has it


@dataclass(frozen=True, slots=True)
class Found:
    document: Document  # its data are the keys of the JSON object
    failed: Sequence[str] = field(default_factory=list)  # runs of which there is no result, and why
    seeds: tuple[int, ...] = ()  # where they are not those of the options


def run(name: str, argv: list[str], measure: Callable[[Options], Found]) -> int:
    """Measures and writes `<out>/<name>.md` with its charts. Returns 1 when a run has failed."""
    args = _parser(name).parse_args(argv)
    count = args.seeds or (QUICK_SEEDS if args.quick else SEEDS)
    seeds = tuple(range(1, count + 1))
    asked = Options(seeds, args.quick, args.data, args.rows, args.processes, args.live, args.scale)
    found = measure(asked)
    told = provenance(["headrace", "reproduce", name, *said(argv)], found.seeds or seeds)
    screen.show(found.document, sys.stderr)
    if args.out is not None:
        path = markdown.write(found.document, told, args.out, name, found.failed)
        print(f"\nreport: {path}", file=sys.stderr)
    if args.json:
        line = {"reproduce": name} | told.head() | plain(found.document.data) | {"failed": list(found.failed)}
        print(json.dumps(line), flush=True)
    return 1 if found.failed else 0


def said(argv: list[str]) -> list[str]:
    """Without files of whoever ran it: another's command is the same."""
    kept, skip = [], False
    for word in argv:
        if not skip and word not in _FILES and not word.startswith(tuple(f"{name}=" for name in _FILES)):
            kept.append(word)
        skip = word in _FILES and not skip
    return kept


def _parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"headrace reproduce {name}")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SEEDS} seeds and less of everything: a minute")
    parser.add_argument("--seeds", type=int, default=0, help=f"how many, instead of {SEEDS}")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write the report there, as docs/reproduce holds it")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of recorded traces")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="keep finished runs there, and go on from it")
    parser.add_argument("--processes", type=int, default=0, help="at once; one a core, unless said")
    parser.add_argument("--live", action="store_true", help="also a small scenario on a real mesh of this machine")
    parser.add_argument(
        "--scale", type=float, default=0.0, help="of the fleet, where there is a choice: 1 is the paper's"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    return parser
