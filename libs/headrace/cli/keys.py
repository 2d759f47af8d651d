"""`headrace keys`: makes, lists, rotates and revokes API keys in a TOML file that gateways read again when it changes.

A key is shown once, when it is made; the file holds its hash.
"""

import argparse
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from headrace.cli.options import DATA_DIR
from headrace.cli.view import Console
from headrace.core.access import SCOPES, Key, Limits, Scope
from headrace.mesh import keyfile
from headrace.mesh.errors import BadSetup

LIMITS = {
    "requests_per_min": "requests in a minute",
    "tokens_per_min": "tokens of prompts and answers in a minute",
    "concurrent": "requests at once",
    "tokens_per_day": "tokens in a day of UTC",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = Path(os.environ.get("HEADRACE_API_KEYS_FILE") or DATA_DIR / "keys.toml")
    parser.add_argument("--file", type=Path, default=default, help=f"ends in .toml ({default})")
    commands = parser.add_subparsers(dest="what", required=True)
    add = commands.add_parser("add", help="a new key, shown once")
    add.add_argument("--tenant", required=True, help="whose requests share one flow of the queue")
    add.add_argument("--scopes", default="generate,batch", help=f"of {', '.join(SCOPES)}")
    for name, meaning in LIMITS.items():
        add.add_argument(f"--{name.replace('_', '-')}", type=int, default=0, metavar="N", help=f"{meaning}; 0: any")
    add.add_argument(
        "--soonest",
        type=float,
        default=0.0,
        metavar="S",
        help="no first token sooner, whatever priority it asks; 0: any",
    )
    add.add_argument("--days", type=float, default=math.inf, help="until it expires")
    commands.add_parser("list", help="ids, tenants, scopes, limits; never a key")
    for name, meaning in (("revoke", "refused from now on"), ("rotate", "a new secret for the same id")):
        one = commands.add_parser(name, help=meaning)
        one.add_argument("id")
        if name == "rotate":
            one.add_argument("--grace", type=float, default=0.0, metavar="S", help="seconds the old one is still good")


def run(args: argparse.Namespace) -> int:
    console = Console()
    commands: dict[str, Callable[[Console, argparse.Namespace], None]] = {
        "add": _add,
        "list": _list,
        "revoke": _revoke,
        "rotate": _rotate,
    }
    try:
        if args.file.suffix != ".toml":
            raise BadSetup(f"{args.file}: its name must end in .toml; plain lines of <key> <tenant> are edited by hand")
        commands[args.what](console, args)
    except (BadSetup, ValueError, OSError) as error:
        console.error(str(error))
        return 1
    return 0


def _read(file: Path) -> list[Key]:
    return keyfile.read(file) if file.exists() else []


def _add(console: Console, args: argparse.Namespace) -> None:
    scopes = [word.strip() for word in args.scopes.split(",") if word.strip()]
    if unknown := sorted(set(scopes) - set(SCOPES)):
        raise BadSetup(f"no scope {unknown[0]!r}; there are {', '.join(SCOPES)}")
    limits = Limits(**{name: getattr(args, name) for name in LIMITS})
    keys = _read(args.file)
    until_s = time.time() + args.days * 86_400
    shown, key = keyfile.make(args.tenant, cast(Sequence[Scope], scopes), limits, args.soonest, until_s)
    _write(args.file, [*keys, key])
    console.plain(shown)
    console.note(f"the key {key.id} of {args.tenant}: kept in {args.file} as a hash, so it is not shown again")


def _write(file: Path, keys: Sequence[Key]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    keyfile.write(file, keys)


def _list(console: Console, args: argparse.Namespace) -> None:
    rows = []
    for key in _read(args.file):
        limits = [f"{getattr(key.limits, name)} {meaning}" for name, meaning in LIMITS.items()]
        said = ", ".join(text for text in limits if not text.startswith("0 ")) or "none"
        rows.append([key.id, key.tenant, ", ".join(sorted(key.scopes)), said, _state(key, time.time())])
    console.table("keys", ("id", "tenant", "scopes", "limits", ""), rows)


def _state(key: Key, now_s: float) -> str:
    if key.revoked_s <= now_s:
        return "revoked"
    if key.expires_s <= now_s:
        return "expired"
    return "" if math.isinf(key.expires_s) else f"until {datetime.fromtimestamp(key.expires_s, UTC):%Y-%m-%d}"


def _revoke(console: Console, args: argparse.Namespace) -> None:
    keys = _read(args.file)
    _write(args.file, _replaced(keys, args.id, lambda key: replace(key, revoked_s=min(key.revoked_s, time.time()))))
    console.plain(f"{args.id} is revoked; gateways that read {args.file} refuse it within a second")


def _rotate(console: Console, args: argparse.Namespace) -> None:
    shown, _ = keyfile.mint(args.id)
    until_s = time.time() + args.grace

    def renewed(key: Key) -> Key:
        return replace(key, hash=keyfile.digest(shown), old_hash=key.hash, old_until_s=until_s)

    _write(args.file, _replaced(_read(args.file), args.id, renewed))
    console.plain(shown)
    console.note(f"the old secret of {args.id} is good for {args.grace:.0f} s more")


def _replaced(keys: Sequence[Key], key_id: str, change: Callable[[Key], Key]) -> list[Key]:
    """Raises BadSetup: no such key."""
    if key_id not in {key.id for key in keys}:
        raise BadSetup(f"no key {key_id!r}; `headrace keys list` shows them")
    return [change(key) if key.id == key_id else key for key in keys]
