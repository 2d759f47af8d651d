"""A job: the queue manager's record of one accepted request, and the table of states that it moves through.

accepted -> encoding -> queued -> prefill -> handover -> decode -> ending -> ended; evicted for those that make room for
others, and recovering for those whose worker was lost. Only Cell.move changes a state, and only along this table.
"""

from typing import TYPE_CHECKING, Literal

from headrace.core.lengths.prediction import Prediction
from headrace.core.types import End, Key, Logprobs, Request, StageSpan, TensorHandle
from headrace.core.waiting.remaining import Remaining
from headrace.core.waiting.work import NOTHING, Work

if TYPE_CHECKING:
    from headrace.core.queue.groups import Group

State = Literal[
    "accepted", "encoding", "queued", "prefill", "handover", "decode", "evicted", "recovering", "ending", "ended"
]

LIFE: dict[State, frozenset[State]] = {
    # read from the journal; under a new leadership it stays here until every worker has said what it holds
    "accepted": frozenset({"encoding", "queued", "prefill", "handover", "decode", "evicted", "recovering", "ending"}),
    # media parts are out or waiting to go out; at prefill already, where that begins on the first parts
    "encoding": frozenset({"queued", "prefill", "ending"}),
    # ready for prefill; back to encoding when an encoder dies with an embedding
    "queued": frozenset({"prefill", "encoding", "ending"}),
    # at a worker; back to accepted only while a new leadership finds a newer attempt elsewhere
    "prefill": frozenset({"handover", "decode", "recovering", "ending", "accepted"}),
    # the KV cache waits at the prefill worker
    "handover": frozenset({"decode", "recovering", "ending", "accepted"}),
    "decode": frozenset({"evicted", "recovering", "ending", "accepted"}),
    # the KV cache waits in a worker's host memory; handed over when it goes on, there or elsewhere
    "evicted": frozenset({"handover", "recovering", "ending", "accepted"}),
    # a worker was lost: what was emitted is being looked up
    "recovering": frozenset({"encoding", "queued", "ending"}),
    # the end is known and being stored
    "ending": frozenset({"ended"}),
    "ended": frozenset(),
}
WAITING: frozenset[State] = frozenset({"accepted", "encoding", "queued", "recovering"})
AT_WORKER: frozenset[State] = frozenset({"prefill", "handover", "decode", "evicted"})
STANDING: frozenset[State] = frozenset({"queued", "evicted"})  # in a waiting line for workers

Suspicion = Literal["", "encode", "llm"]
Stop = Literal["", "cancelled", "deadline"]


Lane = tuple[str, str, bool]  # model, modality, whether for suspects: who waits for an encoder behind whom


class Part:
    """One media part of a job: not placed, at an encoder, or encoded there (handle set)."""

    __slots__ = ("attempt", "handle", "index", "resends", "sent_s", "tokens", "worker")

    def __init__(self, index: int, tokens: int) -> None:
        self.index = index
        self.tokens = tokens
        self.worker = ""  # "" : not placed
        self.attempt = 0  # the attempt it was sent under; handles outlive attempts
        self.handle: TensorHandle | None = None
        self.sent_s = 0.0
        self.resends = 0


class Job:
    __slots__ = (
        "_key",
        "alone",
        "askers",
        "attempt",
        "charged",
        "deaths",
        "deaths_alone",
        "decode",
        "died_at",
        "dispatched_s",
        "due_s",
        "emitted",
        "end",
        "evict_sent_s",
        "evicted_bytes",
        "evictions",
        "expected",
        "fed_s",
        "gateway",
        "gateway_known",
        "group",
        "kv_tokens",
        "lane",
        "left",
        "length",
        "logprobs",
        "parts",
        "patience_s",
        "prefill",
        "progress",
        "put_back",
        "ready_s",
        "remaining",
        "request",
        "resends",
        "sent_s",
        "seq",
        "stage_failures",
        "start_index",
        "state",
        "stop",
        "suspect",
        "ticket",
        "timeline",
        "told",
        "tries",
        "work",
    )

    def __init__(self, request: Request, seq: int, kv_tokens: int) -> None:
        self.request = request
        self._key = Key(request.id, 0)
        self.seq = seq
        self.kv_tokens = kv_tokens
        self.state: State = "accepted"
        self.attempt = 0  # 0: none yet
        self.tries = 0  # attempts given out by this leadership
        self.gateway = request.gateway
        self.gateway_known = True  # False: a leadership before ours may have let it move
        self.parts = [Part(index, media.tokens) for index, media in enumerate(request.media)]
        self.prefill = ""  # worker ids; the job has a seat at each that is named
        self.decode = ""
        self.told = 0  # of its parts, the first so many that this attempt's prefill worker was told of
        self.fed_s = 0.0  # when it was last told
        self.put_back = False  # its prefill began early and made room for others: it waits for all parts now
        self.emitted: tuple[int, ...] = ()  # by earlier attempts
        self.logprobs: Logprobs = ()  # of emitted
        self.start_index = 0  # of this attempt's first new token
        self.progress = 0  # next index that a worker has told
        self.ready_s = 0.0  # since when it waits: for encoders first, then for workers
        self.ticket = 0  # its valid entry in the waiting line, or its group's number
        self.group: Group | None = None  # that it waits in, where there are groups
        self.work: Work = NOTHING  # that it adds to its group
        self.remaining: Remaining | None = None  # of its answer, once it was asked for
        self.expected: tuple[float, float, int, float] | None = None  # wait, its bound, how many ahead; said when
        self.lane: Lane | None = None  # where it waits for an encoder
        self.sent_s = 0.0  # when the current worker was last told about it
        self.resends = 0
        self.charged = 0.0  # tokens, on its tenant's share
        self.dispatched_s = 0.0  # when this attempt was sent to a worker, or last went on after an eviction
        self.evict_sent_s = 0.0  # asked to leave the engine; 0: not asked
        self.evictions = 0
        self.left: tuple[str, ...] = ()  # workers that it moved away from in this attempt: they take it no more
        self.evicted_bytes = 0  # of its KV cache, in the host memory of the worker that keeps it
        self.due_s = 0.0  # of an evicted one: when it is to go on
        self.patience_s = 0.0  # how long its KV cache may be on the way
        self.suspect: Suspicion = ""
        self.alone = False  # it runs alone now
        self.deaths = 0  # of workers that ran it, since it last proved harmless
        self.died_at: Suspicion = ""  # the stage of those deaths
        self.deaths_alone = 0
        self.stage_failures = 0
        self.stop: Stop = ""  # asked to stop; the worker has been told
        self.length: Prediction | None = None  # of its whole output, as a predictor said
        self.timeline: tuple[StageSpan, ...] = ()
        self.end: End | None = None
        self.askers: list[str] = []  # gateways to be sent to RESULTS once the result is there

    @property
    def key(self) -> Key:
        """Made once an attempt: it is asked for many times."""
        key = self._key
        if key.attempt != self.attempt:
            key = self._key = Key(self.request.id, self.attempt)
        return key

    @property
    def one_left(self) -> bool:
        """The first token is the last: there is nothing to hand over."""
        return self.request.sampling.max_tokens - len(self.emitted) == 1

    @property
    def prefill_tokens(self) -> int:
        """KV positions at a worker that hands over after the first new token."""
        return self.kv_tokens - self.request.sampling.max_tokens + len(self.emitted) + 1

    @property
    def encoded(self) -> bool:
        return all(part.handle is not None for part in self.parts)

    @property
    def encoded_first(self) -> int:
        """Parts that are encoded, up to the first that is not."""
        return next((part.index for part in self.parts if part.handle is None), len(self.parts))

    @property
    def filling(self) -> bool:
        """Its prefill has begun, and some of its parts are still to come there."""
        return self.state == "prefill" and self.told < len(self.parts)

    @property
    def bereft(self) -> bool:
        """... and one of those is on its way no more."""
        return self.filling and any(not part.worker for part in self.parts[self.told :])

    def workers(self) -> tuple[str, ...]:
        """Where this attempt runs."""
        if self.decode in ("", self.prefill):
            return (self.prefill,) if self.prefill else ()
        return (self.prefill, self.decode) if self.prefill else (self.decode,)
