"""API keys: both forms of the file, what each refuses, and how soon a change is followed."""

import math
import time
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.core.access import Key, Limits
from headrace.core.errors import PermissionDenied, Unauthenticated
from headrace.mesh import keyfile, keyring
from headrace.mesh.errors import BadSetup
from headrace.mesh.keyring import Keys

NOW_S = 1_900_000_000.0


def _key(shown: str, **changes: object) -> Key:
    base = Key("k1", keyfile.digest(shown), "alice", frozenset(("generate",)))
    return replace(base, **changes)  # type: ignore[arg-type]


def test_toml_reads_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    limits = Limits(60, 1000, 4, 50_000)
    keys = [
        _key("a", limits=limits, expires_s=NOW_S, old_hash=keyfile.digest("b"), old_until_s=NOW_S),
        _key("c", id="k2", tenant='a"b"\\', scopes=frozenset(("operate", "metrics")), revoked_s=NOW_S),
    ]
    keyfile.write(path, keys)
    assert keyfile.read(path) == keys
    assert path.stat().st_mode & 0o777 == 0o600


HASH = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[[key]]\nid = 'x'", "hash is missing"),
        (f"[[key]]\nid = 'x'\nhash = '{HASH}'\ntenant = 't'\nscopes = ['root']", "no scope 'root'"),
        (
            f"[[key]]\nid = 'x'\nhash = '{HASH}'\ntenant = 't'\nscopes = ['batch']\nrequests_per_min = -1",
            "whole number",
        ),
        (f"[[key]]\nid = 'x'\nhash = '{HASH}'\ntenant = 't'\nscopes = ['batch']\nexpires = 5", "2027-01-31"),
        (f"[[key]]\nid = 'x'\nhash = '{HASH}'\ntenant = 't'\nscopes = ['batch']\nrequest_per_min = 5", "unknown"),
        ("[[key]]\nid = 'x'\nhash = 'md5:00'\ntenant = 't'\nscopes = ['batch']", "sha256"),
        (f"[[key]]\nid = 'x'\nhash = '{HASH}'\ntenant = 't'\nscopes = ['batch']\n" * 2, "same id"),
        ("key = 5", "want"),
        ("[[key", "key"),
    ],
)
def test_a_bad_file_says_why(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "keys.toml").write_text(text)
    with pytest.raises(BadSetup, match=why):
        keyfile.read(tmp_path / "keys.toml")


@pytest.mark.parametrize(
    ("header", "changes", "good"),
    [
        ("Bearer s", {}, True),
        ("bearer s ", {}, True),
        ("Basic s", {}, False),
        ("Bearer t", {}, False),
        ("Bearer", {}, False),
        ("", {}, False),
        ("Bearer " + "s" * 100_000, {}, False),
        ("Bearer s", {"expires_s": 1.0}, False),
        ("Bearer s", {"revoked_s": 1.0}, False),
        ("Bearer old", {"old_hash": keyfile.digest("old"), "old_until_s": math.inf}, True),
        ("Bearer old", {"old_hash": keyfile.digest("old"), "old_until_s": 1.0}, False),
        ("Bearer s", {"old_hash": keyfile.digest("old"), "old_until_s": 1.0}, True),
    ],
)
def test_who_is_let_in(header: str, changes: dict[str, object], good: bool) -> None:
    keys = Keys([_key("s", **changes)])
    if good:
        assert keys.find(header).tenant == "alice"
    else:
        with pytest.raises(Unauthenticated):
            keys.find(header)


def test_scopes() -> None:
    keys = Keys([_key("s", scopes=frozenset(("metrics",)))])
    assert keys.require("Bearer s", "metrics", "operate")
    with pytest.raises(PermissionDenied, match="generate or batch"):
        keys.require("Bearer s", "generate", "batch")
    assert Keys().require("", "operate").tenant == "default"


def test_a_change_is_followed_and_a_slip_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "RELOAD_S", 0.0)
    path = tmp_path / "keys.toml"
    keyfile.write(path, [_key("s")])
    keys = Keys.read(str(path))
    assert keys.find("Bearer s")
    path.write_text("[[key")
    assert keys.find("Bearer s"), "the last good file holds"
    path.unlink()
    assert keys.find("Bearer s")
    keyfile.write(path, [_key("s", revoked_s=time.time())])
    with pytest.raises(Unauthenticated):
        keys.find("Bearer s")


def test_nobody_is_found_by_a_hash(tmp_path: Path) -> None:
    """What stands in the file opens nothing."""
    path = tmp_path / "keys.toml"
    keyfile.write(path, [_key("s")])
    keys = Keys.read(str(path))
    for word in (keyfile.digest("s").hex(), f"sha256:{keyfile.digest('s').hex()}", "k1"):
        with pytest.raises(Unauthenticated):
            keys.find(f"Bearer {word}")
