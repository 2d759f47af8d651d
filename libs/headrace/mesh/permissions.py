"""What each service may say and hear on NATS, from the names in mesh/subjects.py, as nats-server's own configuration.

One user a role. A worker can tell events, heartbeats, telemetry and tokens, and hand a request to another worker; it
can neither command, nor cap, nor lead, nor touch a stream. Whoever takes one worker over has no more than that.
"""

import json
from collections.abc import Mapping
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
_READ = tuple(
    f"{_JS}DIRECT.GET.{name}.{subject}" for name, subject in zip(_STREAMS, (s.REQUESTS, s.RESULTS), strict=True)
)

_KEEP = (
    *(f"{_JS}STREAM.{verb}.{name}" for verb in ("INFO", "CREATE", "UPDATE", "PURGE") for name in _KEPT),
    *(f"{_JS}CONSUMER.CREATE.{name}.>" for name in _KEPT),
    f"{_JS}DIRECT.GET.{s.STREAM_BATCHES}.{s.BATCHES}",
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
}


def role_of(module: str) -> str:
    """Of services.<name>: the three kinds of worker share one, since one process may be all of them."""
    name = module.rpartition(".")[2]
    return name if name in ROLES else "worker"


def authorization(passwords: Mapping[str, str]) -> str:
    """The block for nats-server; passwords: one for each role. JSON strings are strings of its language."""
    users = [_user(name, role, passwords[name]) for name, role in ROLES.items()]
    return "authorization {\n  timeout: 5\n  users: [\n" + "".join(users) + "  ]\n}\n"


def _user(name: str, role: Role, password: str) -> str:
    publish = f"publish: {{allow: {json.dumps(list(role.publish))}}}" if role.publish else 'publish: {deny: [">"]}'
    subscribe = f"subscribe: {{allow: {json.dumps([*role.subscribe, f'_INBOX.{name}.>'])}}}"
    answers = ", allow_responses: true" if role.answers else ""
    permissions = f"{{{publish}, {subscribe}{answers}}}"
    return f"    {{user: {json.dumps(name)}, password: {json.dumps(password)}, permissions: {permissions}}}\n"
