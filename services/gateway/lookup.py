"""Requests that this gateway does not hold yet: found in RESULTS or in the journal, and attached to.

Order matters: a result is stored before its journal record is deleted, so RESULTS, journal, RESULTS again misses
nothing.
"""

import time
from collections.abc import Callable
from typing import Protocol

from headrace.core.errors import Conflict, NotFound, StageError
from headrace.core.types import Request
from headrace.wire.convert import Result
from services.gateway.live import Facts, Live
from services.gateway.streams import Streams

MISSES_MAX = 3  # asked 0.5 s apart: longer than the queue manager takes from a worker's end to RESULTS


class Archive(Protocol):
    async def result(self, request_id: str) -> Result | None: ...
    async def record(self, request_id: str) -> Request | None: ...


class Lookup:
    def __init__(
        self,
        streams: Streams,
        archive: Archive,
        facts_of: Callable[[Request], Facts],
        attach: Callable[[Live], None],
    ) -> None:
        self._streams = streams
        self._archive = archive
        self._facts_of = facts_of
        self._attach = attach
        self._looking: set[str] = set()

    async def ended_or_here(self, request_id: str) -> Live | None:
        """Before an append under a chosen id. What runs elsewhere is found by the append itself: a duplicate."""
        return self._streams.get(request_id) or await self._ended(request_id)

    async def get(self, request_id: str, tenant: str) -> Live:
        """Raises NotFound: no such request of this tenant."""
        live = self._streams.get(request_id) or await self._elsewhere(request_id)
        if live is None or live.facts.tenant != tenant:
            raise NotFound("no such request; results are kept for a few minutes", field="request_id")
        return live

    async def facts(self, request_id: str) -> Facts | None:
        """Of a request that may run or have ended anywhere, without attaching to it."""
        request = await self._archive.record(request_id)
        if request is not None:
            return self._facts_of(request)
        ended = await self._ended(request_id)
        return None if ended is None else ended.facts

    async def _elsewhere(self, request_id: str) -> Live | None:
        if (ended := await self._ended(request_id)) is not None:
            return ended
        request = await self._archive.record(request_id)
        if (live := self._streams.get(request_id)) is not None:
            return live  # somebody else was faster
        if request is None:
            return await self._ended(request_id)
        live = self._streams.open(self._facts_of(request), time.monotonic(), adopting=True)
        self._attach(live)
        return live

    async def _ended(self, request_id: str) -> Live | None:
        result = await self._archive.result(request_id)
        if result is None:
            return None
        usage = result.end.usage
        facts = Facts(
            result.request_id,
            result.tenant,
            result.model,
            result.body_hash,
            result.stop,
            usage.prompt_tokens,
            usage.image_tokens,
            logprobs=bool(result.logprobs),
            calls=result.calls,
            choices=result.choices,
        )
        live = Live(facts, time.monotonic())
        live.stream.settle(result.tokens, result.end, result.logprobs)
        return live

    async def adopt(self, live: Live, body_hash: bytes) -> None:
        """The journal already had this id when it was appended: listen to what runs, if it is the same request.

        Raises:
            Conflict: it is not.
        """
        request = await self._archive.record(live.facts.id)
        result = None if request is not None else await self._archive.result(live.facts.id)
        known = request or result
        if known is not None and known.body_hash != body_hash:
            error = Conflict("the idempotency key was used with another body", field="idempotency_key")
            self._streams.lost(live, error)
            raise error
        if result is not None:
            self._streams.settle(live, result.tokens, result.end, time.monotonic(), result.logprobs)
        else:
            live.adopting = True
            self._attach(live)

    async def settle(self, request_id: str) -> None:
        """The queue manager says that it is over: take the end from RESULTS."""
        live = self._streams.get(request_id)
        if live is None or live.end is not None or request_id in self._looking:
            return
        self._looking.add(request_id)
        try:
            await self._settle(live)
        finally:
            self._looking.discard(request_id)

    async def _settle(self, live: Live) -> None:
        result = await self._archive.result(live.facts.id)
        if result is None and await self._archive.record(live.facts.id) is None:
            result = await self._archive.result(live.facts.id)
            live.missing += result is None
        if result is not None:
            self._streams.settle(live, result.tokens, result.end, time.monotonic(), result.logprobs)
        elif live.missing >= MISSES_MAX:
            self._streams.lost(live, StageError("the request is known neither to the journal nor to the results"))
