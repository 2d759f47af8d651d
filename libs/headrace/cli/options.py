"""The options that several commands share, and the MeshConfig that they make."""

import argparse
import os
from pathlib import Path

from headrace.cli.environment import GRPC_PORT, HTTP_PORT
from headrace.cli.plan import COUNT_MAX, MODEL, MeshConfig, parse_colocate

DATA_DIR = Path(".headrace")
ENGINES = ("onnx", "torch", "vllm", "profile")
WEIGHTS = ("fp32", "q4", "int8")


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", type=Path, default=DATA_DIR, help="journal, blobs, logs and run state")


def add_mesh(parser: argparse.ArgumentParser) -> None:
    add_data_dir(parser)
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="onnx",
        help="torch: Hugging Face directories; profile: no model, only its pace",
    )
    parser.add_argument("--weights", choices=WEIGHTS, default="fp32", help="q4: the checkpoint's own 4-bit blocks")
    parser.add_argument("--profile", default="", help="name or file of the profile engine's profile")
    parser.add_argument("--model", type=_model, default="", help=f"a name, or a Hugging Face directory ({MODEL})")
    parser.add_argument(
        "--models",
        type=_models,
        default=(),
        metavar="A,B",
        help="all that are served, the first one first; loaded in turn",
    )
    for name in ("encoders", "prefill", "decode", "gateways"):
        parser.add_argument(f"--{name}", type=_count, default=1, metavar="N")
    parser.add_argument("--colocate", type=_colocate, default=(), metavar="STAGES", help="prefill,decode or all")
    parser.add_argument("--sync-always", action="store_true", help="fsync the journal at every request")
    parser.add_argument("--no-restart", action="store_true", help="leave dead processes dead")


def mesh_config(args: argparse.Namespace, *, tethered: bool) -> MeshConfig:
    return MeshConfig(
        data_dir=args.data_dir,
        engine=args.engine,
        profile=args.profile,
        weights=args.weights,
        model=args.model or next(iter(args.models), MODEL),
        models=args.models,
        encoders=args.encoders,
        prefill=args.prefill,
        decode=args.decode,
        gateways=args.gateways,
        colocate=args.colocate,
        sync_always=args.sync_always,
        restart=not args.no_restart,
        tethered=tethered,
        cores=len(os.sched_getaffinity(0)),
        http_port=HTTP_PORT,
        grpc_port=GRPC_PORT,
    )


def mesh_words(args: argparse.Namespace) -> list[str]:
    """The same options as words again, for the process that runs the mesh in the background."""
    words = ["--data-dir", str(args.data_dir), "--engine", args.engine]
    words += ["--model", args.model] if args.model else []
    words += ["--weights", args.weights]
    for name in ("encoders", "prefill", "decode", "gateways"):
        words += [f"--{name}", str(getattr(args, name))]
    if args.profile:
        words += ["--profile", args.profile]
    if args.models:
        words += ["--models", ",".join(args.models)]
    if args.colocate:
        words += ["--colocate", ",".join(args.colocate)]
    return words + ["--sync-always"] * args.sync_always + ["--no-restart"] * args.no_restart


def _model(text: str) -> str:
    """Paths have a slash, names have none: a directory is given whole to processes that start elsewhere."""
    return str(Path(text).expanduser().resolve()) if "/" in text else text


def _models(text: str) -> tuple[str, ...]:
    return tuple(_model(name) for part in text.split(",") if (name := part.strip()))


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= COUNT_MAX:
        raise argparse.ArgumentTypeError(f"{value} is not between 1 and {COUNT_MAX}")
    return value


def _colocate(text: str) -> tuple[str, ...]:
    try:
        return parse_colocate(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
