"""`headrace model export DIR` and `headrace model show DIR`: Hugging Face directories, before a mesh runs on them."""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from headrace.core.errors import HeadraceError
from headrace.engines.artifacts import cache_root, progress
from headrace.engines.base import ModelSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="export|show")
    export = actions.add_parser("export", help="write its encoders as ONNX files, once (needs headrace[torch])")
    export.add_argument("directory", type=Path, metavar="DIR")
    export.add_argument(
        "--out", type=Path, help="instead of the cache directory: start workers with HEADRACE_CACHE_DIR set to it"
    )
    show = actions.add_parser("show", help="architecture, context, KV cache, modalities")
    show.add_argument("directory", type=Path, metavar="DIR")


def run(args: argparse.Namespace) -> int:
    try:
        return _export(args.directory, args.out or cache_root()) if args.action == "export" else _show(args.directory)
    except HeadraceError as error:
        print(f"headrace: {error.message}", file=sys.stderr)
        return 1


def _export(path: Path, root: Path) -> int:
    from headrace.engines.families.directory import Directory, export_encoders, open_family

    spec = open_family(path).spec
    if not spec.modalities:
        print(f"{spec.name} takes text alone: there is nothing to export")
        return 0
    known = Directory(path.resolve()).encoders_in(root).exists()
    started_s = time.monotonic()
    if not known:
        progress(f"exporting the encoders of {spec.name} ({', '.join(spec.modalities)})")
    folder = export_encoders(path, root)
    if not known:
        progress(f"done in {time.monotonic() - started_s:.0f} s")
    print(f"{folder} {'was there already' if known else 'is ready'}: {_size(folder)}")
    return 0


def _show(path: Path) -> int:
    from headrace.engines.families.directory import Directory, open_family

    directory = Directory(path.resolve())
    for name, value in _facts(directory.config.get("model_type", ""), open_family(path).spec):
        print(f"{name:<14} {value}")
    if open_family(path).spec.modalities:
        folder = directory.encoders
        print(f"{'encoders':<14} {folder if folder.exists() else f'none: run `headrace model export {path}`'}")
    return 0


def _facts(architecture: str, spec: ModelSpec) -> Iterator[tuple[str, str]]:
    yield "model", spec.name
    yield "architecture", architecture
    yield "media enter", "through cross-attention" if spec.contract == "cross" else "as rows of the prompt"
    yield "modalities", ", ".join(("text", *spec.modalities))
    yield "context", f"{spec.context_tokens:,} tokens"
    yield "vocabulary", f"{spec.vocab_size:,}"
    yield "KV cache", f"{spec.kv_bytes_per_token:,} bytes a token"


def _size(folder: Path) -> str:
    files = [file for file in folder.iterdir() if file.is_file()]
    return f"{len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB"
