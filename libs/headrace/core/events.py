"""What may happen to the queue manager: every input of QueueCore.handle, and nothing else.

Any of these may arrive twice, late or out of order, and all but the journal's may never arrive.
"""

from dataclasses import dataclass

from headrace.core.commands import Hold
from headrace.core.governing import Governance, StageHint
from headrace.core.instance import NO_PACE, NOTHING_DONE, NOTHING_ENCODED, Done, Encoded, Loadable, Pace
from headrace.core.planning.problem import Plan
from headrace.core.types import End, Failure, Key, Logprobs, Request, StageSpan, TensorHandle


@dataclass(frozen=True, slots=True)
class RequestAccepted:
    """The journal holds this request under the stream sequence `seq`."""

    request: Request
    seq: int


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """The journal has been read up to what it held when this leadership began."""


@dataclass(frozen=True, slots=True)
class ResultsFound:
    """Answer to FindResults: these requests had ended before this leadership began."""

    asked: int  # how many the question named
    ended: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PartEncoded:
    worker: str
    key: Key
    part: int
    embedding: TensorHandle
    timeline: tuple[StageSpan, ...] = ()


@dataclass(frozen=True, slots=True)
class Prefilled:
    """Prefill is over and the KV cache waits for the decode worker."""

    worker: str
    key: Key
    next_index: int
    kv: TensorHandle | None = None
    timeline: tuple[StageSpan, ...] = ()  # at this worker; of the next two as well


@dataclass(frozen=True, slots=True)
class Joined:
    """The decode worker holds the KV cache: the prefill worker's copy may go."""

    worker: str
    key: Key


@dataclass(frozen=True, slots=True)
class Evicted:
    """The request left the engine; its KV cache, tokens and all, waits in the worker's host memory."""

    worker: str
    key: Key
    next_index: int
    kv: TensorHandle
    timeline: tuple[StageSpan, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """A worker ended the request and told the gateway. `tokens` are all of them, replayed ones included."""

    worker: str
    key: Key
    end: End
    tokens: tuple[int, ...]
    logprobs: Logprobs = ()


@dataclass(frozen=True, slots=True)
class StageFailed:
    worker: str
    key: Key
    failure: Failure
    retryable: bool
    timeline: tuple[StageSpan, ...] = ()


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A worker lives, has this capacity and holds exactly this."""

    worker: str
    incarnation: str
    stages: tuple[str, ...]
    model: str
    host: str = ""
    grpc_address: str = ""
    slots: int = 0
    blocks: int = 0
    block_tokens: int = 1
    draining: bool = False
    leaving: bool = False
    epoch: int = 0
    holds: tuple[Hold, ...] = ()
    sent_s: float = 0.0
    modalities: tuple[str, ...] = ()
    pace: Pace = NO_PACE  # of its model, as its profile says
    done: Done = NOTHING_DONE
    kv_bytes_per_token: int = 0
    host_bytes: int = 0  # of host memory for evicted KV caches; 0: it cannot evict
    loadable: tuple[Loadable, ...] = ()  # empty: it serves its model for ever
    loading: str = ""  # the model that is being loaded: it serves nothing until then
    overlaps: bool = False  # its prefill may begin on a request's first media parts; PartsCommand brings the others
    load_error: str = ""  # why `loading` did not come about; the model before it is served again
    encoded: Encoded = NOTHING_ENCODED


@dataclass(frozen=True, slots=True)
class Governed:
    """All that a governor asks for. Of a worker that is not named nothing is known: full speed, no risk."""

    governor: str
    epoch: int  # of its life: the greater one is the newer
    sequence: int  # within it
    lease_s: float  # nothing of it holds for longer than this without another word
    workers: tuple[Governance, ...] = ()
    stages: tuple[StageHint, ...] = ()


@dataclass(frozen=True, slots=True)
class Cancel:
    """`gateway` empty: whoever asks; else ignored when the request has moved to another gateway."""

    request_id: str
    gateway: str = ""
    deadline: bool = False


@dataclass(frozen=True, slots=True)
class Attach:
    request_id: str
    gateway: str
    next_index: int


@dataclass(frozen=True, slots=True)
class Stalled:
    """A stream that has been silent at its gateway."""

    request_id: str
    gateway: str
    attempt: int
    next_index: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """What is known of a request's earlier attempts: emitted tokens, and the end if its gateway saw one."""

    key: Key  # the attempt that RecoverTokens named: the one to come
    tokens: tuple[int, ...] = ()
    end: End | None = None
    logprobs: Logprobs = ()


@dataclass(frozen=True, slots=True)
class TokensRecovered:
    recovered: tuple[Recovered, ...]


@dataclass(frozen=True, slots=True)
class LengthPredicted:
    """Answer to PredictLength: output tokens at headrace.core.lengths.LEVELS."""

    request_id: str
    tokens: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class PlanSolved:
    """Answer to SolvePlan."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class ResultStored:
    request_id: str


@dataclass(frozen=True, slots=True)
class Switched:
    """An operator turns something on or off; of core.queue.switches.SWITCHES alone."""

    name: str
    on: bool


@dataclass(frozen=True, slots=True)
class BusDown:
    """The bus is away: silence means nothing until it is back."""


@dataclass(frozen=True, slots=True)
class BusUp:
    pass


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed. Expected at least every 0.25 s; a longer gap means that we were stopped."""


Event = (
    RequestAccepted
    | CaughtUp
    | ResultsFound
    | PartEncoded
    | Prefilled
    | Joined
    | Evicted
    | Ended
    | StageFailed
    | Heartbeat
    | Governed
    | Cancel
    | Attach
    | Stalled
    | TokensRecovered
    | LengthPredicted
    | PlanSolved
    | ResultStored
    | Switched
    | BusDown
    | BusUp
    | Tick
)
