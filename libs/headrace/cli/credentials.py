"""All that a secure trial needs in one directory: certificates, NATS users, a Redis user, API keys; made once.

`headrace certs DIR` makes it for containers, `headrace up --secure` for the mesh of its data directory. Files that are
there stay, so a mesh that is started again finds its passwords; delete one to have it made anew.
"""

import hashlib
import secrets
from collections.abc import Sequence
from pathlib import Path

from headrace.client.door import MEMBER_NAME, Door
from headrace.core.access import SCOPES, Scope
from headrace.mesh import keyfile
from headrace.mesh.permissions import ROLES, authorization, role_of
from headrace.mesh.private_files import write_private
from headrace.mesh.servers import NatsDoor, RedisDoor

REDIS_USER = "headrace"
PASSWORD_BYTES = 24
DAYS = 365  # that certificates are good for; a trial that lasts longer makes them again
# name of the file -> what its key may do
TRIAL_KEYS: dict[str, tuple[Scope, ...]] = {"trial": ("generate", "batch"), "operator": SCOPES}


def prepare(directory: Path, hosts: Sequence[str] = (), days: int = DAYS) -> None:
    from headrace.mesh import certs  # needs cryptography, which only making them does

    certs.make(directory, hosts, days)
    passwords = {role: _password(directory / f"nats-{role}.creds", f"{role}:") for role in ROLES}
    _write(directory / "nats-users.conf", authorization(passwords))
    password = _password(directory / "redis.password")
    hashed = hashlib.sha256(password.encode()).hexdigest()
    # Only the mesh's own keys, and nothing that administers the server or walks through all of it at once.
    rules = f"user default off\nuser {REDIS_USER} on #{hashed} ~hr:* &* +@all -@admin -@dangerous\n"
    _write(directory / "redis.acl", rules)
    if not (directory / "keys.toml").exists():
        _make_keys(directory)


def _make_keys(directory: Path) -> None:
    made = {name: keyfile.make("trial", scopes) for name, scopes in TRIAL_KEYS.items()}
    for name, (shown, _) in made.items():
        _write(directory / f"{name}.key", shown)
    keyfile.write(directory / "keys.toml", [key for _, key in made.values()])


def _password(path: Path, before: str = "") -> str:
    if not path.exists():
        _write(path, before + secrets.token_urlsafe(PASSWORD_BYTES))
    return path.read_text().strip().removeprefix(before)


def _write(path: Path, text: str) -> None:
    write_private(path, text.rstrip("\n").encode() + b"\n")


def environment(directory: Path, module: str) -> dict[str, str]:
    """What a service of the mesh is told; module: services.<name>."""
    return tls_variables(directory) | {
        "HEADRACE_NATS_CREDS_FILE": str(directory / f"nats-{role_of(module)}.creds"),
        "HEADRACE_REDIS_USER": REDIS_USER,
        "HEADRACE_REDIS_PASSWORD_FILE": str(directory / "redis.password"),
        "HEADRACE_API_KEYS_FILE": str(directory / "keys.toml"),
    }


def tls_variables(directory: Path, who: str = "member") -> dict[str, str]:
    files = {"CERT": f"{who}.crt", "KEY": f"{who}.key", "CA": "ca.crt"}
    return {f"HEADRACE_TLS_{name}": str(directory / file) for name, file in files.items()}


def operator_door(directory: Path) -> Door:
    """An operator of the mesh: every scope, and the client certificate that inner services ask for."""
    key = (directory / "operator.key").read_text().strip()
    ca, cert, pair = (str(directory / name) for name in ("ca.crt", "client.crt", "client.key"))
    return Door(key, ca, cert, pair, MEMBER_NAME)


def nats_door(directory: Path) -> NatsDoor:
    users = (directory / "nats-users.conf").read_text()
    return NatsDoor(directory / "member.crt", directory / "member.key", directory / "ca.crt", users)


def redis_door(directory: Path, socket: Path) -> RedisDoor:
    return RedisDoor(socket, directory / "redis.acl")
