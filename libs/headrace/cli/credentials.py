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
from headrace.mesh.permissions import ROLES, authorization, doors, leaf, role_of
from headrace.mesh.private_files import write_private
from headrace.mesh.servers import NatsDoor, RedisDoor

REDIS_USER = "headrace"
IN_CONTAINER = "/run/headrace"  # where containers have these files
PASSWORD_BYTES = 24
DAYS = 365  # that certificates are good for; a trial that lasts longer makes them again
# name of the file -> what its key may do
TRIAL_KEYS: dict[str, tuple[Scope, ...]] = {"trial": ("generate", "batch"), "operator": SCOPES}


def prepare(
    directory: Path, hosts: Sequence[str] = (), days: int = DAYS, behind: tuple[str, Sequence[str]] | None = None
) -> None:
    """behind: this cell's name, and where the doors' NATS is, with user and password; None: there are no doors."""
    from headrace.mesh import certs  # needs cryptography, which only making them does

    certs.make(directory, hosts, days)
    passwords = {role: _password(directory / f"nats-{role}.creds", f"{role}:") for role in ROLES}
    _write(directory / "nats-users.conf", authorization(passwords))
    if behind is not None:
        _write(directory / "nats-leaf.conf", leaf(passwords, *behind, IN_CONTAINER))
    hashed, replica = (_hashed(directory / f"{name}.password") for name in ("redis", "redis-replica"))
    _write(directory / "redis.acl", _redis_rules(hashed, replica))
    _write(directory / "sentinel.acl", _sentinel_rules(hashed, replica))
    if not (directory / "keys.toml").exists():
        _make_keys(directory)


def prepare_doors(directory: Path, cells: Sequence[str], hosts: Sequence[str] = (), days: int = DAYS) -> None:
    """Of the NATS that cells tell their status: its certificate, the doors' login and one for each cell."""
    from headrace.mesh import certs

    certs.make(directory, hosts, days)
    door = _password(directory / "nats-door.creds", "door:")
    logins = {cell: _password(directory / f"nats-cell-{cell}.creds", f"{cell}:") for cell in cells}
    _write(directory / "nats-doors-users.conf", doors(door, logins))


def _hashed(path: Path) -> str:
    return "#" + hashlib.sha256(_password(path).encode()).hexdigest()


def _redis_rules(member: str, replica: str) -> str:
    """Members: only the mesh's own keys, and nothing that administers the server or walks through all of it at once.
    Replicas and Sentinels: what following and watching take, as Redis' documentation lists it."""
    follows = "+psync +replconf +ping"
    watches = "+multi +slaveof +ping +exec +subscribe +config|rewrite +role +publish +info +client +script|kill"
    return (
        "user default off\n"
        f"user {REDIS_USER} on {member} ~hr:* &* +@all -@admin -@dangerous\n"
        f"user replica on {replica} {follows}\n"
        f"user sentinel on {replica} &* {watches}\n"
    )


def _sentinel_rules(member: str, replica: str) -> str:
    """Members ask who the master is; Sentinels do what they like with one another."""
    asks = "+@connection -@admin -@dangerous +sentinel|masters +sentinel|get-master-addr-by-name"
    return f"user default off\nuser {REDIS_USER} on {member} {asks}\nuser sentinel on {replica} &* +@all\n"


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
