"""What a worker holds until it is told to release it: one Held per request (newest attempt), one Part per media part.

waiting -> prefill -> running | handover -> ended; on the decode side joining -> running -> ended. Between two of its
tokens a request may leave the engine: running -> evicted -> resuming -> running, or on to handover. Release removes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from headrace.core.commands import EncodeCommand, Hold, HoldState, PrefillCommand
from headrace.core.stages.roster import Place
from headrace.core.types import Key, Prompt, StageSpan, TensorHandle, TokenLogprobs
from headrace.engines.base import SequenceInput
from headrace.mesh.transfer import Fetched
from headrace.v1 import common_pb2
from headrace.worker.finish import Finish

if TYPE_CHECKING:
    from headrace.worker.exports import Export

State = Literal["waiting", "joining", "prefill", "running", "evicted", "resuming", "handover", "ended"]

NEXT: dict[State, tuple[State, ...]] = {
    "waiting": ("prefill", "ended"),
    "joining": ("running", "ended"),
    "prefill": ("running", "ended"),
    "running": ("handover", "evicted", "ended"),  # handover: at the first token, when another worker decodes
    "evicted": ("resuming", "handover", "ended"),  # handover: it goes on at another worker
    "resuming": ("running", "evicted", "ended"),  # evicted: another model was loaded meanwhile
    "handover": ("ended",),
    "ended": (),
}

# A joining request is not listed: its KV cache still stands in the prefill worker's hold, which must not go yet.
LISTED: dict[State, HoldState] = {
    "waiting": "prefill",
    "prefill": "prefill",
    "running": "decode",
    "evicted": "evicted",
    "resuming": "evicted",
    "handover": "handover",
    "ended": "ended",
}


def media_parts(prompt: Prompt) -> int:
    return max((span.part + 1 for span in prompt.spans), default=0)


@dataclass(slots=True, eq=False)
class Held:
    """A request at this worker. The command is kept as it came: a decode worker gets it passed on."""

    key: Key
    command: PrefillCommand
    gateway: str
    state: State
    since_s: float  # when the stage began that the request is in now
    sequence: SequenceInput
    finish: Finish
    blocks: int  # KV blocks it needs here
    prefix_tokens: int  # of the named prefix that its prompt stands behind
    tokens: list[int]  # all output tokens, those of earlier attempts included
    logged: int  # tokens[:logged] stand in the token log
    logged_s: float
    traced: bool
    log_chunks: int = 0  # what the token log had after the last write
    logprobs: dict[int, TokenLogprobs] = field(default_factory=dict)  # by output index, as far as they are known
    cached_tokens: int = 0  # of the prompt, found in the prefill worker's prefix cache
    spans: list[StageSpan] = field(default_factory=list)
    joules: float = 0.0  # spent on it in the stage that it is in now
    place: Place = "outside"
    joining_kv: TensorHandle | None = None  # to be pulled; of one that resumes: its own
    pulled_kv: Fetched | None = None
    pulling: bool = False  # embeddings
    export: "Export | None" = None  # on its way into a file, from here
    offered: bool = False  # the decode worker may be pulling it
    exported_kv: TensorHandle | None = None  # to be pulled from here, by others or when it resumes
    end: common_pb2.End | None = None
    ended_s: float = 0.0

    def to(self, state: State) -> None:
        assert state in NEXT[self.state], f"{self.key}: {self.state} -> {state}"
        self.state = state

    @property
    def timeline(self) -> tuple[StageSpan, ...]:
        """All that it has been through by now, as far as this worker knows."""
        return (*self.command.timeline, *self.spans)

    @property
    def lacks(self) -> int:
        """Media parts that it needs and has not been told of."""
        if self.state not in ("waiting", "prefill"):
            return 0
        return media_parts(self.command.prompt) - len(self.command.embeddings)

    def drop_pulled_kv(self) -> None:
        if self.pulled_kv is not None:
            self.pulled_kv.close()
            self.pulled_kv = None


@dataclass(slots=True, eq=False)
class Part:
    """One media part: waiting for or in the encoder until its handle is told."""

    key: Key
    command: EncodeCommand
    received_s: float
    traced: bool
    handle: TensorHandle | None = None
    told: bool = False  # the event with its spans went first: a heartbeat that overtook it would cost the timeline
    embedding: NDArray[np.float32] | None = None  # for a prefill stage in this very process

    @property
    def modality(self) -> str:
        return self.command.media.meta.modality


class Holds:
    def __init__(self) -> None:
        self.requests: dict[str, Held] = {}
        self.parts: dict[str, dict[int, Part]] = {}  # by request, then by part

    def __len__(self) -> int:
        return len(self.requests) + len(self.parts)

    def current(self, key: Key) -> Held | None:
        """The request, if it is held in exactly this attempt."""
        held = self.requests.get(key.request_id)
        return held if held is not None and held.key == key else None

    def beside_evicted(self) -> int:
        """Requests that are not out of the engine for a while."""
        return sum(held.state not in ("evicted", "resuming") for held in self.requests.values())

    def prefill_tokens(self) -> int:
        """Of prompts that are here and not done."""
        return sum(held.sequence.length for held in self.requests.values() if held.state in ("waiting", "prefill"))

    def media_tokens(self) -> int:
        """Of parts that are here and not encoded."""
        every = (part for parts in self.parts.values() for part in parts.values())
        return sum(part.command.media.tokens for part in every if part.handle is None)

    def embedding(self, handle_id: str) -> NDArray[np.float32] | None:
        """The embeddings that this very process has made; None once they are released."""
        request_id = "".join(handle_id.split(".")[1:2])
        for part in self.parts.get(request_id, {}).values():
            if part.handle is not None and part.handle.id == handle_id:
                return part.embedding
        return None

    def listed(self) -> Iterator[Hold]:
        """What the heartbeat says."""
        for held in self.requests.values():
            if held.state in LISTED:
                yield _request_hold(held)
        for parts in self.parts.values():
            yield from map(_part_hold, parts.values())


def _request_hold(held: Held) -> Hold:
    return Hold(
        key=held.key,
        state=LISTED[held.state],
        next_index=len(held.tokens),
        handle=held.exported_kv,
        decode_worker=held.command.decode_worker,
        lacks=held.lacks,
    )


def _part_hold(part: Part) -> Hold:
    state: HoldState = "encoded" if part.told else "encoding"
    return Hold(key=part.key, state=state, part=part.command.part, handle=part.handle)
