"""What each service may say and hear on NATS, from the names in mesh/subjects.py, as nats-server's own configuration.

One user a role. A worker can tell events, heartbeats, telemetry and tokens, and hand a request to another worker; it
can neither command, nor cap, nor lead, nor touch a stream. Whoever takes one worker over has no more than that.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.mesh import subjects as s

_JS = "$JS.API."
_STREAMS = (s.STREAM_REQUESTS, s.STREAM_RESULTS)
_KEPT = (s.STREAM_BATCHES, s.STREAM_LINES)  # of the gateways alone, who keep and read them


@dataclass(frozen=True, slots=True)
class Role:
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: bool = False  # it may answer what it is asked, wherever the asker listens


# Gateways make the streams where they are the first to start; changing and deleting is the queue manager's.
_MAKE = tuple(f"{_JS}STREAM.{verb}.{name}" for verb in ("INFO", "CREATE") for name in _STREAMS)
# Of a replicated stream the leader is asked for what a replica does not have.
_READ = (
    *(f"{_JS}DIRECT.GET.{name}.{subject}" for name, subject in zip(_STREAMS, (s.REQUESTS, s.RESULTS), strict=True)),
    *(f"{_JS}STREAM.MSG.GET.{name}" for name in (*_STREAMS, *_KEPT)),
)

_KEEP = (
    *(f"{_JS}STREAM.{verb}.{name}" for verb in ("INFO", "CREATE", "UPDATE", "PURGE") for name in _KEPT),
    *(f"{_JS}CONSUMER.CREATE.{name}.>" for name in _KEPT),
)

ROLES: Mapping[str, Role] = {
    "gateway": Role(
        (s.REQUESTS, s.CONTROL, s.BATCHES, s.LINES, *_MAKE, *_READ, *_KEEP, "$JS.FC.>"),
        # Telemetry and caps are for the console.
        (s.tokens("*"), s.gateway("*"), s.held("*"), s.STATUS, s.EMBEDDERS, s.TELEMETRY, s.CAPS),
        answers=True,
    ),
    "queue_manager": Role(
        (s.RESULTS, s.LEADER, s.work("*"), s.gateway("*"), s.held("*"), s.STATUS, s.SCALE, f"{_JS}>", "$JS.FC.>"),
        (s.HEARTBEAT, s.EVENTS, s.CONTROL, s.CAPS),
    ),
    "worker": Role(
        (s.EVENTS, s.HEARTBEAT, s.TELEMETRY, s.EMBEDDERS, s.tokens("*"), s.peer("*")),
        (s.work("*"), s.peer("*"), s.CAPS),
    ),
    "governor": Role((s.CAPS,), (s.TELEMETRY, s.HEARTBEAT)),
    "supervisor": Role((), (s.SCALE,), answers=True),
    "node": Role((), (s.CAPS,)),  # of a machine with GPUs: it carries out caps, and says nothing
}


def role_of(module: str) -> str:
    """Of services.<name>: the three kinds of worker share one, since one process may be all of them."""
    name = module.rpartition(".")[2]
    return name if name in ROLES else "worker"


def authorization(passwords: Mapping[str, str]) -> str:
    """The block for nats-server; passwords: one for each role. JSON strings are strings of its language."""
    return "authorization {\n  timeout: 5\n  users: [\n" + _users(passwords) + "  ]\n}\n"


# Where many cells are behind doors (docs/cells.md): in a cell, and at the doors.
_MESH, _DOORS = "MESH", "DOORS"


def leaf(passwords: Mapping[str, str], cell: str, urls: Sequence[str], papers: str) -> str:
    """In the place of authorization(): the cell's users in an account of their own, of which the doors' NATS gets the
    status under the cell's name and nothing else. What comes from there ends in the account that the leaf node is
    bound to: nothing of it is imported.

    urls: of the doors' NATS, with user and password. papers: directory of this server's certificate; empty: no TLS.
    """
    files = {"cert_file": "member.crt", "key_file": "member.key", "ca_file": "ca.crt"}
    tls = ", ".join(f"{key}: {json.dumps(f'{papers}/{file}')}" for key, file in files.items())
    remote = f"urls: {json.dumps(list(urls))}, account: {_DOORS}"
    stream = f"{{account: {_MESH}, subject: {json.dumps(s.STATUS)}}}"
    return (
        f"accounts {{\n  {_MESH} {{\n    jetstream: enabled\n    users: [\n{_users(passwords)}    ]\n"
        f"    exports: [{{stream: {json.dumps(s.STATUS)}}}]\n  }}\n"
        f"  {_DOORS} {{ imports: [{{stream: {stream}, to: {json.dumps(s.cell_status(cell))}}}] }}\n}}\n"
        f"leafnodes {{ remotes: [{{{remote}{', tls {' + tls + '}' if papers else ''}}}] }}\n"
    )


def doors(door: str, cells: Mapping[str, str]) -> str:
    """Of the doors' NATS: a cell says its own status, a door hears all. door: its password; cells: name to theirs."""
    users = [f"{{user: door, password: {json.dumps(door)}, permissions: {{{_MUTE}, {_HEARS}}}}}"]
    for cell, password in cells.items():
        says = f"publish: {{allow: [{json.dumps(s.cell_status(cell))}]}}"
        users.append(
            f"{{user: {json.dumps(cell)}, password: {json.dumps(password)}, permissions: {{{says}, {_DEAF}}}}}"
        )
    return f"accounts {{ {_DOORS} {{ users: [\n  " + "\n  ".join(users) + "\n] } }\n"


# A leaf node that may hear nothing by a denial is told of no interest either, and then says nothing.
_MUTE, _DEAF = 'publish: {deny: [">"]}', 'subscribe: {allow: ["hr.cells.nothing"]}'
_HEARS = f"subscribe: {{allow: {json.dumps([s.CELL_STATUS, '_INBOX.door.>'])}}}"


def _users(passwords: Mapping[str, str]) -> str:
    return "".join(_user(name, role, passwords[name]) for name, role in ROLES.items())


def _user(name: str, role: Role, password: str) -> str:
    publish = f"publish: {{allow: {json.dumps(list(role.publish))}}}" if role.publish else 'publish: {deny: [">"]}'
    subscribe = f"subscribe: {{allow: {json.dumps([*role.subscribe, f'_INBOX.{name}.>'])}}}"
    answers = ", allow_responses: true" if role.answers else ""
    permissions = f"{{{publish}, {subscribe}{answers}}}"
    return f"    {{user: {json.dumps(name)}, password: {json.dumps(password)}, permissions: {permissions}}}\n"
