"""What the queue manager wants done: every output of QueueCore.handle.

Sends may be lost and are repaired by heartbeats; what stores, deletes, finds or recovers must be carried out.
"""

from dataclasses import dataclass

from headrace.core.commands import EncodeCommand, MoveCommand, PartsCommand, PrefillCommand, ResendCommand
from headrace.core.planning.problem import Problem
from headrace.core.types import End, Key, Logprobs, Request, StageSpan


@dataclass(frozen=True, slots=True)
class SendEncode:
    worker: str
    command: EncodeCommand


@dataclass(frozen=True, slots=True)
class SendPrefill:
    worker: str
    command: PrefillCommand


@dataclass(frozen=True, slots=True)
class SendParts:
    """A prefill that has begun on the first media parts may go on with these."""

    worker: str
    command: PartsCommand


@dataclass(frozen=True, slots=True)
class SendCancel:
    """Stop computing; the worker answers Ended(cancelled)."""

    worker: str
    key: Key


@dataclass(frozen=True, slots=True)
class SendRelease:
    """Free all that is held for this attempt; no answer."""

    worker: str
    key: Key


@dataclass(frozen=True, slots=True)
class SendResend:
    worker: str
    command: ResendCommand


@dataclass(frozen=True, slots=True)
class SendEvict:
    """Take a decoding request out of the engine, its KV cache into host memory; the worker answers Evicted."""

    worker: str
    key: Key


@dataclass(frozen=True, slots=True)
class SendResume:
    """An evicted request goes on where it was; the worker answers Joined."""

    worker: str
    key: Key


@dataclass(frozen=True, slots=True)
class SendMove:
    """An evicted request goes on at another worker: its owner sends that one the join, answered with Joined."""

    worker: str
    command: MoveCommand


@dataclass(frozen=True, slots=True)
class SendLoad:
    """Serve this model instead of the present one; heartbeats tell when."""

    worker: str
    model: str


@dataclass(frozen=True, slots=True)
class SendDismiss:
    """It drains, and the books have nothing more for it: no command that was sent can meet a worker that has left."""

    worker: str


@dataclass(frozen=True, slots=True)
class SolvePlan:
    """Plan this in a process of its own; answer PlanSolved, or never."""

    problem: Problem
    node_limit: int
    moves: int
    planner: str = "headrace"  # who is to plan it: the one that puts new groups in their places


@dataclass(frozen=True, slots=True)
class Traced:
    """An interval of a request that came with a traceparent."""

    key: Key
    traceparent: str
    span: StageSpan


@dataclass(frozen=True, slots=True)
class Orphan:
    """A request to run again: fence attempts older than key at its gateway, and find what was emitted."""

    key: Key
    gateway: str


@dataclass(frozen=True, slots=True)
class RecoverTokens:
    """Read the token logs, ask the gateways, answer TokensRecovered for every orphan: the longest wins."""

    orphans: tuple[Orphan, ...]


@dataclass(frozen=True, slots=True)
class PredictLength:
    """How long will its answer be? Answer LengthPredicted, or never."""

    request: Request


@dataclass(frozen=True, slots=True)
class FindResults:
    """Which of these have a stored result already? Answer ResultsFound."""

    request_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoreResult:
    """Keep the result, then answer ResultStored. Retried until it is stored."""

    request: Request
    attempt: int
    tokens: tuple[int, ...]
    end: End
    ended_s: float
    logprobs: Logprobs = ()


@dataclass(frozen=True, slots=True)
class DeleteRecord:
    """The journal need not keep this request any longer."""

    request_id: str
    seq: int


@dataclass(frozen=True, slots=True)
class DropState:
    """The result is stored: drop the blobs, the token log and the handles."""

    request_id: str
    has_media: bool


@dataclass(frozen=True, slots=True)
class GatewayEnded:
    """An end that no worker announced."""

    gateway: str
    key: Key
    end: End


@dataclass(frozen=True, slots=True)
class LookInResults:
    """Not live any more: the gateway reads RESULTS."""

    gateway: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Moved:
    """Another gateway has attached."""

    gateway: str
    request_id: str


Effect = (
    SendEncode
    | SendPrefill
    | SendParts
    | SendCancel
    | SendRelease
    | SendDismiss
    | SendResend
    | SendEvict
    | SendResume
    | SendMove
    | SendLoad
    | SolvePlan
    | RecoverTokens
    | FindResults
    | PredictLength
    | StoreResult
    | DeleteRecord
    | DropState
    | GatewayEnded
    | LookInResults
    | Moved
    | Traced
)
