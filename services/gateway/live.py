"""A live request at this gateway: its stream, its local listeners, and when it was last heard of.

A listener reads the stream at its own pace from the stream's own token list: nothing is queued per listener.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace.core.errors import Cancelled, HeadraceError
from headrace.core.types import End
from services.gateway.limits import Taken
from services.gateway.stream import Stream

LISTENERS_MAX = 16  # of one request: retries of an impatient client, and somebody watching


@dataclass(frozen=True, slots=True)
class Facts:
    """What the gateway knows of a request apart from its tokens; all of it is in the journal record too."""

    id: str
    tenant: str
    model: str
    body_hash: bytes
    stop: tuple[str, ...]
    prompt_tokens: int
    image_tokens: int
    slo_class: str = ""
    traceparent: str = ""
    keep_on_disconnect: bool = False
    logprobs: bool = False  # whether they were asked for
    calls: bool = False  # whether the text may hold calls of tools
    choices: int = 0  # of the first of several answers to one question: how many
    ttft_s: float = 0.0  # its own target for the first token; 0: its class's


class Listener:
    """One reader of one stream: a response being written. whole: wants the end, not every token."""

    __slots__ = ("_future", "closed", "cursor", "left", "live", "opened_s", "whole")

    def __init__(self, live: "Live", opened_s: float, whole: bool = False) -> None:
        self.live = live
        self.cursor = 0
        self.whole = whole
        self.opened_s = opened_s
        self.left = False  # the client is gone
        self.closed = False  # the response is over
        self._future: asyncio.Future[None] | None = None

    def take(self) -> Sequence[int]:
        """The tokens that came since the last call."""
        tokens = self.live.stream.tokens
        start, self.cursor = self.cursor, len(tokens)
        return tokens[start:]

    @property
    def has_news(self) -> bool:
        stream = self.live.stream
        if stream.end is not None or self.left or self.live.failed is not None:
            return True
        return not self.whole and len(stream.tokens) > self.cursor

    async def news(self) -> None:
        """Until there are new tokens, an end, a failure, or the client has left."""
        if not self.has_news:
            self._future = asyncio.get_running_loop().create_future()
            await self._future
        if self.live.failed is not None:
            raise self.live.failed

    def wake(self) -> None:
        if self._future is not None and not self._future.done() and self.has_news:
            self._future.set_result(None)

    def leave(self) -> None:
        """The client is gone: whoever writes the response finds out at once."""
        self.left = True
        self.wake()


@dataclass(slots=True, eq=False)
class Live:
    facts: Facts
    opened_s: float  # monotonic, as all times here
    stream: Stream = field(default_factory=Stream)
    listeners: list[Listener] = field(default_factory=list)
    failed: HeadraceError | None = None  # no end will come here: moved away, or lost
    heard_s: float = 0.0
    ask_s: float = 0.0  # when to ask where it is
    asked: int = 0  # times asked since it was heard of
    first_token_s: float | None = None
    ended_s: float = 0.0
    adopting: bool = False  # attached from elsewhere, nothing heard yet
    cancel_s: float | None = None  # since when it is being cancelled
    deadline: bool = False  # ... because its time is over
    missing: int = 0  # times that neither RESULTS nor the journal knew it
    received_s: float = 0.0  # wall clock, for the timeline; 0: another gateway received it
    admitted_s: float = 0.0
    expected_s: float = 0.0  # until its first token, when it was let in; 0: nothing was known, or nobody waited
    patience_s: float = 0.0  # ... and what it may be at most
    media: bool = False  # it waits for encoders, too
    taken: Taken | None = None  # what its API key was charged, until it is settled

    @property
    def end(self) -> End | None:
        return self.stream.end

    def wake(self) -> None:
        for listener in self.listeners:
            listener.wake()

    def fail(self, error: HeadraceError) -> None:
        self.failed = error
        self.wake()


def moved_error() -> HeadraceError:
    return Cancelled("another gateway has taken over this request's stream")
