"""From an Ask to a journaled request: validate, media, render, limits, blobs, journal. Accepted means journaled.

HTTP and gRPC share it. Every refusal is a typed error (core/errors.py) that names the field.
"""

import asyncio
import hashlib
import math
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from headrace.core.errors import (
    Conflict,
    ContextTooLong,
    DeadlineExceeded,
    HeadraceError,
    InvalidInput,
    Unavailable,
)
from headrace.core.slo import BUILT_IN, Classes, SloClass
from headrace.core.types import Media, Prompt, Request, Sampling
from headrace.engines.families import Family, TextPart
from headrace.mesh.errors import Uncertain
from headrace.mesh.faults import reach
from services.gateway import capacity
from services.gateway.ask import LOGPROBS_MAX, Ask, Caller, body_hash, check
from services.gateway.auth import check_class, patient
from services.gateway.limits import Limiter, Taken
from services.gateway.live import Facts, Live
from services.gateway.lookup import Lookup
from services.gateway.media import Fetcher, MediaInput, check_media, read_media
from services.gateway.metrics import GatewayMetrics
from services.gateway.models import Models
from services.gateway.streams import Streams
from services.gateway.targets import flow_of

MAX_TOKENS_DEFAULT = 1024  # of a request that names no max_tokens: a long answer, and a bounded promise of KV blocks
# Of the last user turn, in the journal: 128 and 384 tokens, as the length predictor reads.
QUESTION_CHARS = (512, 1_536)
RENDER_INLINE_BYTES = 16_384  # tokenising more than this would hold up the other streams: a thread does it


class Journal(Protocol):
    async def append(self, request: Request) -> bool:
        """Durable when it returns. True: the journal already had this id."""
        ...


class Mesh(Protocol):
    """The gateway's shell, as admission sees it."""

    name: str
    cell: capacity.Cell | None
    streams: Streams
    lookup: Lookup
    metrics: GatewayMetrics
    on_end: list[Callable[[Live], None]]


class Blobs(Protocol):
    async def put(self, request_id: str, data: bytes) -> str: ...
    async def drop(self, request_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Terms:
    """What is served, and on which terms. early_rejection: what could not begin before its deadline is refused."""

    models: Models
    classes: Classes = BUILT_IN
    early_rejection: bool = True


@dataclass(frozen=True, slots=True)
class Draft:
    """A request whose every part has been checked."""

    model: str
    prompt: Prompt
    media: tuple[Media, ...]
    data: tuple[bytes, ...]
    sampling: Sampling


class Admission:
    def __init__(
        self, gateway: Mesh, terms: Terms, journal: Journal, blobs: Blobs, fetcher: Fetcher, limiter: Limiter
    ) -> None:
        self._gateway = gateway
        self._streams = gateway.streams
        self._lookup = gateway.lookup
        self._terms = terms
        self._journal = journal
        self._blobs = blobs
        self._fetcher = fetcher
        self._limiter = limiter
        gateway.on_end.append(self._settle)
        self.draining = False

    async def admit(self, ask: Ask, caller: Caller, traceparent: str = "", prefix: str = "") -> Live:
        """The live stream of this request: a new one, or the one that its idempotency key already names.

        prefix: where sampling fields live in the caller's protocol, for error messages.

        Raises:
            HeadraceError: typed, naming the field.
        """
        if self.draining:
            raise Unavailable("this gateway is shutting down", retry_after_s=1.0)
        self._limiter.check(caller.key)
        check(ask, prefix)
        family, slo = self._terms.models.family(ask.model), self._class(ask)
        request_id, content_hash = _identity(ask, caller.tenant)
        if ask.idempotency_key and (known := await self._lookup.ended_or_here(request_id)) is not None:
            return _same(known, content_hash)
        check_class(caller.key, slo.name, self._terms.classes)
        ask = replace(ask, targets=patient(caller.key, ask.targets, slo.ttft_s))
        check_media(ask.media, family.spec)
        modalities = {source.modality for source in ask.media}
        bid = capacity.Bid(family.spec.name, slo.name, modalities, self._left_s(ask, caller, slo))
        capacity.admit(self._gateway.cell, time.monotonic(), bid, partial(self._streams.of_class, slo.name))
        if caller.key.id:
            mine = partial(self._streams.of_tenant, slo.name, caller.tenant)
            capacity.leave_room(self._gateway.cell, bid, mine)
        inputs = await read_media(ask.media, self._fetcher, family)
        draft = await _draft(family, ask, inputs, request_id, prefix)
        reach("gateway.validated", request_id)
        taken = await self._take(caller, ask, slo, draft, request_id)
        try:
            live = await self._accept(request_id, content_hash, ask, caller, slo, draft, traceparent, taken)
        except (HeadraceError, OSError):
            if taken is not None:
                self._limiter.settle(taken, 0)
            raise
        if taken is not None and live.taken is not taken:  # its twin was here before
            self._limiter.settle(taken, 0)
        return live

    async def _take(self, caller: Caller, ask: Ask, slo: SloClass, draft: Draft, request_id: str) -> Taken | None:
        cost = len(draft.prompt.tokens) + draft.sampling.max_tokens
        runs_s = max(0.0, _deadline_s(ask, caller, slo) - time.time())
        return await self._limiter.take(caller.key, request_id, cost, runs_s)

    def _settle(self, live: Live) -> None:
        if live.taken is not None and live.end is not None:
            usage = live.end.usage
            self._limiter.settle(live.taken, usage.prompt_tokens + usage.completion_tokens)

    def _left_s(self, ask: Ask, caller: Caller, slo: SloClass) -> float:
        """Until its deadline; inf where it is let in all the same: of one that goes before its class the estimate for
        the class says nothing."""
        if not self._terms.early_rejection or ask.targets.before(slo.ttft_s):
            return math.inf
        return _deadline_s(ask, caller, slo) - time.time()

    def _class(self, ask: Ask) -> SloClass:
        """The one that it names; else the first that something about it hints at; else the default."""
        classes = self._terms.classes
        hints = [hint for hint in ask.targets.class_hints if hint in classes.named]
        slo = classes.get(ask.slo_class or next(iter(hints), ""))
        if slo is None:
            known = ", ".join(classes.named)
            raise InvalidInput(f"no SLO class {ask.slo_class[:64]!r}; there are {known}", field="slo_class")
        return slo

    async def _accept(
        self,
        request_id: str,
        content_hash: bytes,
        ask: Ask,
        caller: Caller,
        slo: SloClass,
        draft: Draft,
        traceparent: str,
        taken: Taken | None,
    ) -> Live:
        # A second request with the same key may have come while this one was read.
        if (twin := self._streams.get(request_id)) is not None:
            return _same(twin, content_hash)
        accepted_s = time.time()
        deadline_s = _deadline_s(ask, caller, slo)
        if deadline_s <= accepted_s:
            raise DeadlineExceeded("the deadline passed before the request was accepted", field="timeout_s")
        request = Request(
            id=request_id,
            tenant=caller.tenant,
            model=draft.model,
            slo_class=slo.name,
            accepted_s=accepted_s,
            deadline_s=deadline_s,
            prompt=draft.prompt,
            media=draft.media,
            sampling=draft.sampling,
            gateway=self._gateway.name,
            body_hash=content_hash,
            idempotency_key=ask.idempotency_key,
            traceparent=traceparent,
            keep_on_disconnect=ask.keep_on_disconnect,
            question=_question(ask),
            ttft_s=ask.targets.ttft_s,
            tbt_s=ask.targets.tbt_s,
            priority=ask.targets.priority,
            flow=flow_of(caller.tenant, ask.targets.flow),
        )
        live = self._streams.open(facts_of(request), time.monotonic())
        live.opened_s, live.received_s, live.taken = caller.arrived_s, caller.received_s, taken
        try:
            await self._store(request, draft.data, live)
        except asyncio.CancelledError:
            self._streams.cancel(live, time.monotonic())  # the client left; the append may land all the same
            raise
        except (HeadraceError, OSError) as error:
            await self._give_up(request, live, error)
            raise
        live.admitted_s = time.time()
        self._gateway.metrics.accepted += 1
        return live

    async def _give_up(self, request: Request, live: Live, error: HeadraceError | OSError) -> None:
        """Nothing was promised. A request with a key is left alone: its retry, or its twin, may be running."""
        failed = error if isinstance(error, HeadraceError) else Unavailable(f"the blob store failed: {error}")
        if isinstance(error, Uncertain) and not request.idempotency_key:
            self._streams.cancel(live, time.monotonic())
            live.fail(failed)
            return
        self._streams.lost(live, failed)
        if not request.idempotency_key:
            await self._blobs.drop(request.id)

    async def _store(self, request: Request, data: Sequence[bytes], live: Live) -> None:
        if data:
            await asyncio.gather(*(self._blobs.put(request.id, part) for part in data))
            reach("gateway.blobs_stored", request.id)
        duplicate = await self._journal.append(request)
        reach("gateway.journaled", request.id)
        if duplicate:  # another gateway has accepted it, or this one in an earlier life
            await self._lookup.adopt(live, request.body_hash)


def _deadline_s(ask: Ask, caller: Caller, slo: SloClass) -> float:
    return caller.received_s + (ask.timeout_s or slo.timeout_s)


async def _draft(family: Family, ask: Ask, inputs: Sequence[MediaInput], request_id: str, prefix: str) -> Draft:
    media = tuple(Media(part.meta, hashlib.sha256(part.data).hexdigest(), part.tokens) for part in inputs)
    size = sum(len(part.text) for message in ask.messages for part in message.parts if isinstance(part, TextPart))
    if size > RENDER_INLINE_BYTES:
        prompt = await asyncio.to_thread(family.render, ask.messages, media)
    else:
        prompt = family.render(ask.messages, media)
    spec = family.spec
    used = len(prompt.tokens) + spec.prefix_tokens.get(prompt.prefix, 0)
    room = spec.context_tokens - used
    if room < 1:
        raise ContextTooLong(
            f"the prompt has {used} tokens; {spec.name} has a context of {spec.context_tokens}", field="messages"
        )
    wanted = ask.sampling.max_tokens
    if wanted > room:
        raise ContextTooLong(
            f"{used} prompt tokens and {wanted} to generate do not fit a context of {spec.context_tokens}",
            field=prefix + ask.max_tokens_field,
        )
    sampling = ask.sampling if wanted else replace(ask.sampling, max_tokens=min(room, MAX_TOKENS_DEFAULT))
    told = 0 if sampling.logprobs is None else (1 + sampling.logprobs) * sampling.max_tokens
    if told > LOGPROBS_MAX:
        message = f"{told} log-probabilities over {sampling.max_tokens} tokens; at most {LOGPROBS_MAX} an answer"
        raise InvalidInput(message, field=prefix + ask.logprobs_field)
    if not ask.seeded:
        sampling = replace(sampling, seed=int(request_id[:15], 16))
    return Draft(spec.name, prompt, media, tuple(part.data for part in inputs), sampling)


def _question(ask: Ask) -> str:
    """The last user turn; of a long one the beginning and the end, where the task usually stands."""
    last = next((message for message in reversed(ask.messages) if message.role == "user"), ask.messages[-1])
    text = " ".join(part.text for part in last.parts if isinstance(part, TextPart))
    return text if len(text) <= sum(QUESTION_CHARS) else f"{text[: QUESTION_CHARS[0]]} {text[-QUESTION_CHARS[1] :]}"


def facts_of(request: Request) -> Facts:
    return Facts(
        id=request.id,
        tenant=request.tenant,
        model=request.model,
        body_hash=request.body_hash,
        stop=request.sampling.stop,
        prompt_tokens=len(request.prompt.tokens),
        image_tokens=sum(media.tokens for media in request.media if media.meta.modality == "image"),
        slo_class=request.slo_class,
        traceparent=request.traceparent,
        keep_on_disconnect=request.keep_on_disconnect,
        logprobs=request.sampling.logprobs is not None,
    )


def _identity(ask: Ask, tenant: str) -> tuple[str, bytes]:
    """Request id and content hash. Only a request with a key is ever compared with another."""
    if not ask.idempotency_key:
        return secrets.token_hex(16), b""
    name = f"{len(tenant)}:{tenant}:{ask.idempotency_key}".encode()
    return hashlib.sha256(name).hexdigest()[:32], body_hash(ask)


def _same(live: Live, content_hash: bytes) -> Live:
    if live.facts.body_hash != content_hash:
        raise Conflict("the idempotency key was used with another body", field="idempotency_key")
    return live
