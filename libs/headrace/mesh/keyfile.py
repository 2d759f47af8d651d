"""The file of API keys, in two forms: lines of "<key> <tenant>", or TOML with hashes, scopes and limits.

The TOML form (any name that ends in .toml) is what `headrace keys` writes; it holds no key, so reading it gives
nobody access.
"""

import hashlib
import math
import secrets
import tomllib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from headrace.core.access import ASKING, NO_LIMITS, SCOPES, Key, Limits, Scope
from headrace.mesh.errors import BadSetup
from headrace.mesh.private_files import write_private

KEYS_MAX = 100_000  # about 60 MB of memory; a file read again within a second of each change
ID_CHARS, SECRET_BYTES = 8, 32
_HEAD = "# Written by `headrace keys`, which keeps no comments. It holds hashes; the keys were shown once.\n"
_LIMITS = ("requests_per_min", "tokens_per_min", "concurrent", "tokens_per_day")
_TIMES = {"expires": "expires_s", "revoked": "revoked_s", "old_until": "old_until_s"}
_KNOWN = {"id", "hash", "old_hash", "tenant", "scopes", "soonest_s", *_LIMITS, *_TIMES}


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def mint(key_id: str = "") -> tuple[str, str]:
    """A new key and its id: hr-<id>-<secret>."""
    key_id = key_id or secrets.token_hex(ID_CHARS // 2)
    return f"hr-{key_id}-{secrets.token_urlsafe(SECRET_BYTES)}", key_id


def make(
    tenant: str,
    scopes: Iterable[Scope],
    limits: Limits = NO_LIMITS,
    soonest_s: float = 0.0,
    expires_s: float = math.inf,
) -> tuple[str, Key]:
    """The key to show, once, and its record."""
    shown, key_id = mint()
    return shown, Key(key_id, digest(shown), tenant, frozenset(scopes), limits, soonest_s, expires_s)


def read(path: Path) -> list[Key]:
    """Raises BadSetup: no such file, or an entry that cannot be: its place is said, never the key."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise BadSetup(f"HEADRACE_API_KEYS_FILE={str(path)!r}: {why}") from error
    keys = _from_toml(path, text) if path.suffix == ".toml" else _from_lines(path, text)
    if len(keys) > KEYS_MAX:
        raise BadSetup(f"{path}: {len(keys)} keys; at most {KEYS_MAX}")
    return keys


def _from_lines(path: Path, text: str) -> list[Key]:
    """Such a key may ask for anything, operates nothing, and has no limits."""
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if len(words) != 2:
            raise BadSetup(f"{path}:{number}: want <key> <tenant>; see HEADRACE_API_KEYS_FILE")
        keys.append(Key(f"line-{number}", digest(words[0]), words[1], ASKING))
    return keys


def _from_toml(path: Path, text: str) -> list[Key]:
    try:
        tables = tomllib.loads(text).get("key", [])
        if not isinstance(tables, list):
            raise TypeError("want [[key]] tables")
        keys = [_of(table) for table in tables]
    except (ValueError, TypeError) as error:  # TOMLDecodeError is a ValueError
        raise BadSetup(f"{path}: {error}") from error
    if len({key.id for key in keys}) < len(keys):
        raise BadSetup(f"{path}: two keys have the same id")
    return keys


def _of(table: Mapping[str, Any]) -> Key:
    """Raises ValueError, TypeError: naming the key's id."""
    name = str(table.get("id", "?"))[:64]
    missing = [word for word in ("id", "hash", "tenant", "scopes") if not table.get(word)]
    unknown = sorted(set(table) - _KNOWN)
    if missing or unknown:
        raise ValueError(f"key {name}: " + (f"{missing[0]} is missing" if missing else f"unknown {unknown[0]}"))
    if len(str(table["tenant"]).split()) != 1 or str(table["tenant"]) != str(table["tenant"]).strip():
        raise ValueError(f"key {name}: a tenant's name has no space in it")
    scopes = frozenset(table["scopes"])
    if wrong := sorted(scopes - set(SCOPES)):
        raise ValueError(f"key {name}: no scope {wrong[0]!r}; there are {', '.join(SCOPES)}")
    numbers = {word: table[word] for word in _LIMITS if word in table}
    if any(type(number) is not int or number < 0 for number in numbers.values()):
        raise ValueError(f"key {name}: a limit is a whole number, 0 for none")
    soonest_s = table.get("soonest_s", 0.0)
    if not isinstance(soonest_s, int | float) or not 0 <= soonest_s < math.inf:
        raise ValueError(f"key {name}: soonest_s is a number of seconds, 0 for any")
    times = {field: _seconds(name, table[word]) for word, field in _TIMES.items() if word in table}
    return Key(
        name,
        _hash(name, table["hash"]),
        str(table["tenant"]),
        cast(frozenset[Scope], scopes),
        Limits(**numbers),
        float(soonest_s),
        old_hash=_hash(name, table["old_hash"]) if "old_hash" in table else b"",
        **times,
    )


def _hash(name: str, text: object) -> bytes:
    kind, _, digits = str(text).partition(":")
    if kind != "sha256" or len(digits) != 64:
        raise ValueError(f"key {name}: a hash is sha256:<64 hex digits>")
    return bytes.fromhex(digits)


def _seconds(name: str, value: object) -> float:
    if not isinstance(value, datetime):
        raise TypeError(f"key {name}: a time is written 2027-01-31T00:00:00Z")
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()


def write(path: Path, keys: Iterable[Key]) -> None:
    """Replaces the file in one step, so that a gateway never reads half of it; for its owner alone."""
    write_private(path, (_HEAD + "".join(map(_table, keys))).encode())


def _table(key: Key) -> str:
    lines = [f"id = {_quoted(key.id)}", f'hash = "sha256:{key.hash.hex()}"', f"tenant = {_quoted(key.tenant)}"]
    lines.append(f"scopes = [{', '.join(_quoted(scope) for scope in SCOPES if scope in key.scopes)}]")
    lines += [f"{word} = {getattr(key.limits, word)}" for word in _LIMITS if getattr(key.limits, word)]
    if key.soonest_s:
        lines.append(f"soonest_s = {key.soonest_s!r}")
    if key.old_hash:
        lines.append(f'old_hash = "sha256:{key.old_hash.hex()}"')
    for word, field in _TIMES.items():
        at_s = getattr(key, field)
        if 0 < at_s < math.inf:
            lines.append(f"{word} = {datetime.fromtimestamp(int(at_s), UTC).strftime('%Y-%m-%dT%H:%M:%SZ')}")
    return "\n[[key]]\n" + "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Raises ValueError: a control character, which a TOML string would need escapes for."""
    if not text.isprintable():
        raise ValueError(f"{text!r} has characters that cannot be written")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
