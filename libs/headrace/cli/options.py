"""The options that several commands share, and the MeshConfig that they make."""

import argparse
import os
from pathlib import Path

from headrace.cli.environment import GRPC_PORT, HTTP_PORT
from headrace.cli.plan import COUNT_MAX, LEAST, MODEL, MeshConfig, parse_colocate
from headrace.core.scaling import SCALERS
from headrace.engines.registry import ENGINES

DATA_DIR = Path(".headrace")
WEIGHTS = ("fp32", "q4", "int8")
SCALED = {"encoders": "encode", "prefill": "prefill", "decode": "decode"}  # option -> stage


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", type=Path, default=DATA_DIR, help="journal, blobs, logs and run state")


def add_mesh(parser: argparse.ArgumentParser) -> None:
    add_data_dir(parser)
    parser.add_argument(
        "--engine",
        choices=tuple(ENGINES),
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
    parser.add_argument("--encoders", type=_count_or_none, default=1, metavar="N")
    parser.add_argument(
        "--encode",
        action="append",
        default=[],
        metavar="MODALITIES",
        help="an encoder for these alone: image, audio,video",
    )
    for name in ("prefill", "decode", "gateways"):
        parser.add_argument(f"--{name}", type=_count, default=1, metavar="N")
    parser.add_argument("--autoscale", choices=tuple(SCALERS), default="", help="start and drain workers by the load")
    for name in SCALED:
        parser.add_argument(f"--max-{name}", type=_count, metavar="N", help="autoscaled: twice what it starts with")
    parser.add_argument("--min-encoders", type=_count_or_none, metavar="N", help=f"autoscaled: {LEAST}; 0 when idle")
    for name in ("prefill", "decode"):
        parser.add_argument(f"--min-{name}", type=_count, metavar="N", help=f"autoscaled: {LEAST}")
    parser.add_argument("--colocate", type=_colocate, default=(), metavar="STAGES", help="prefill,decode or all")
    parser.add_argument("--sync-always", action="store_true", help="fsync the journal at every request")
    parser.add_argument("--secure", action="store_true", help="TLS, NATS users with permissions, Redis and API keys")
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
        encode=tuple(args.encode),
        prefill=args.prefill,
        decode=args.decode,
        gateways=args.gateways,
        colocate=args.colocate,
        sync_always=args.sync_always,
        restart=not args.no_restart,
        secure=args.secure,
        tethered=tethered,
        cores=len(os.sched_getaffinity(0)),
        autoscale=args.autoscale,
        least=_limits(args, "min"),
        most=_limits(args, "max"),
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
    for each in args.encode:
        words += ["--encode", each]
    if args.autoscale:
        words += ["--autoscale", args.autoscale]
    for end in ("min", "max"):
        for name in SCALED:
            value = getattr(args, f"{end}_{name}")
            words += [f"--{end}-{name}", str(value)] if value is not None else []
    if args.profile:
        words += ["--profile", args.profile]
    if args.models:
        words += ["--models", ",".join(args.models)]
    if args.colocate:
        words += ["--colocate", ",".join(args.colocate)]
    flags = {"--sync-always": args.sync_always, "--no-restart": args.no_restart, "--secure": args.secure}
    return words + [flag for flag, said in flags.items() if said]


def _limits(args: argparse.Namespace, end: str) -> dict[str, int]:
    """By stage, those that were said."""
    said = {stage: getattr(args, f"{end}_{name}") for name, stage in SCALED.items()}
    return {stage: value for stage, value in said.items() if value is not None}


def _model(text: str) -> str:
    """Paths have a slash, names have none: a directory is given whole to processes that start elsewhere."""
    return str(Path(text).expanduser().resolve()) if "/" in text else text


def _models(text: str) -> tuple[str, ...]:
    return tuple(_model(name) for part in text.split(",") if (name := part.strip()))


def _count(text: str, least: int = 1) -> int:
    value = int(text)
    if not least <= value <= COUNT_MAX:
        raise argparse.ArgumentTypeError(f"{value} is not between {least} and {COUNT_MAX}")
    return value


def _count_or_none(text: str) -> int:
    return _count(text, least=0)


def _colocate(text: str) -> tuple[str, ...]:
    try:
        return parse_colocate(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
