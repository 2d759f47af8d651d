"""From an Ask to a journaled request: validate, media, render, limits, blobs, journal. Accepted means journaled.

HTTP and gRPC share it. Every refusal is a typed error (core/errors.py) that names the field.
"""

import asyncio
import hashlib
import json
import math
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from headrace.core.errors import (
    Conflict,
    DeadlineExceeded,
    HeadraceError,
    InvalidInput,
    Unavailable,
)
from headrace.core.slo import BUILT_IN, Classes, SloClass, effective_target_s
from headrace.core.types import Request, Sampling
from headrace.engines.families import Family
from headrace.engines.grammar import calls_tools, json_schema
from headrace.mesh.errors import Uncertain
from headrace.mesh.faults import reach
from services.gateway import capacity, drafts
from services.gateway.ask import Ask, Caller, body_hash, check
from services.gateway.auth import check_at_once, check_class, patient
from services.gateway.drafts import Draft
from services.gateway.gate import Gate
from services.gateway.limits import Limiter, Taken
from services.gateway.live import Facts, Live
from services.gateway.lookup import Lookup
from services.gateway.media import Fetcher, check_media, read_media
from services.gateway.metrics import GatewayMetrics
from services.gateway.models import Models
from services.gateway.streams import Streams
from services.gateway.targets import flow_of

SEED_STRIDE, SEED_END = 0x9E3779B97F4A7C15, 2**63  # an odd number: seeds of answers never meet


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
    on_first_token: list[Callable[[Live, float], None]]
    on_end: list[Callable[[Live, float], None]]


class Blobs(Protocol):
    async def put(self, request_id: str, data: bytes) -> str: ...
    async def drop(self, request_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Terms:
    """What is served, and on which terms. early_rejection: what could not begin in time is refused."""

    models: Models
    classes: Classes = BUILT_IN
    early_rejection: bool = True


class Expected(NamedTuple):
    """Of a request that is let in: seconds until its first token, and how long it may take."""

    wait_s: float = 0.0
    patience_s: float = math.inf
    media: bool = False  # it waits for encoders, too


@dataclass(frozen=True, slots=True)
class Place:
    """Which request of a question: its identity, and for several answers which one it is."""

    request_id: str
    content_hash: bytes
    choice: int = 0
    choices: int = 0  # of the first of several: how many
    expected: Expected = field(default_factory=Expected)


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
        self._gate = Gate()
        gateway.on_first_token.append(self._gate.began)
        gateway.on_end.append(self._settle)
        self.draining = False

    async def admit(self, ask: Ask, caller: Caller, traceparent: str = "", prefix: str = "") -> Live:
        """The live stream of this request: a new one, or the one that its idempotency key already names.

        prefix: where sampling fields live in the caller's protocol, for error messages.

        Raises:
            HeadraceError: typed, naming the field.
        """
        family, slo = self._begin(ask, caller, prefix)
        request_id, content_hash = _identity(ask, caller.tenant)
        if ask.idempotency_key and (known := await self._lookup.ended_or_here(request_id)) is not None:
            return _same(known, content_hash)
        with self._gateway.metrics.objectives.admitting(slo.name):
            expected = self._bid(ask, caller, family, slo, 1)
            draft = await self._draft(family, ask, prefix)
            reach("gateway.validated", request_id)
            place = Place(request_id, content_hash, expected=expected)
            return await self._charged(place, ask, caller, slo, draft, traceparent)

    async def admit_all(
        self, asks: Sequence[Ask], caller: Caller, traceparent: str = "", prefix: str = ""
    ) -> Sequence[Live]:
        """One request or the choices of one question. Raises as they do."""
        if len(asks) == 1:
            return (await self.admit(asks[0], caller, traceparent, prefix),)
        return await self.admit_several(asks, caller, traceparent, prefix)

    async def admit_several(
        self, asks: Sequence[Ask], caller: Caller, traceparent: str = "", prefix: str = ""
    ) -> list[Live]:
        """The choices of one question, each a request of its own: what one costs, may break and is recovered as does
        not concern the others. They are journaled one after the other; if one cannot be, none is answered.

        asks: all of one model and class, with one idempotency key.
        """
        first = asks[0]
        family, slo = self._begin(first, caller, prefix)
        base, content_hash = _identity(first, caller.tenant)
        if first.idempotency_key:
            content_hash = hashlib.sha256(b"".join(map(body_hash, asks))).digest()
        places = [
            Place(choice_id(base, index), content_hash, index, 0 if index else len(asks)) for index in range(len(asks))
        ]
        known = [await self._known(place) for place in places] if first.idempotency_key else [None] * len(places)
        there = [live for live in known if live is not None]
        if len(there) == len(places):
            return there
        with self._gateway.metrics.objectives.admitting(slo.name):
            expected = self._bid(first, caller, family, slo, len(asks) - len(there))
        places = [replace(place, expected=expected) for place in places]
        written = list[Draft]()
        for index, ask in enumerate(asks):
            if index and ask is asks[index - 1]:
                written.append(written[-1])
                continue
            check(ask, prefix)
            written.append(await self._draft(family, ask, prefix))
        lives = list[Live]()
        try:
            for place, ask, draft, live in zip(places, asks, written, known, strict=True):
                with self._gateway.metrics.objectives.admitting(slo.name):
                    lives.append(live or await self._charged(place, ask, caller, slo, draft, traceparent))
        except (asyncio.CancelledError, HeadraceError, OSError):
            for live in lives if not first.idempotency_key else ():
                self._streams.cancel(live, time.monotonic())
            raise
        return lives

    async def _known(self, place: Place) -> Live | None:
        """Raises Conflict: under this key runs, or ran, something else."""
        live = await self._lookup.ended_or_here(place.request_id)
        return None if live is None else _same(live, place.content_hash)

    def check_beside(self, caller: Caller) -> None:
        """Of what is computed beside the queue. Raises Unavailable, PermissionDenied."""
        self._check_open()
        check_at_once(caller.key)

    def _check_open(self) -> None:
        if self.draining:
            raise Unavailable("this gateway is shutting down", retry_after_s=1.0)

    def _begin(self, ask: Ask, caller: Caller, prefix: str) -> tuple[Family, SloClass]:
        self._check_open()
        self._limiter.check(caller.key)
        check(ask, prefix)
        family, slo = self._terms.models.family(ask.model), self._class(ask)
        check_class(caller.key, slo.name, self._terms.classes)
        return family, slo

    def _bid(self, ask: Ask, caller: Caller, family: Family, slo: SloClass, count: int) -> Expected:
        check_media(ask.media, family.spec)
        modalities = {source.modality for source in ask.media}
        left_s, patience_s = self._patience_s(ask, caller, slo)
        bid = capacity.Bid(family.spec.name, slo.name, modalities, left_s, patience_s, count)
        wait_s = self._gate.admit(self._gateway.cell, time.monotonic(), bid, self._streams, caller)
        return Expected(wait_s, patience_s, bool(modalities))

    async def _charged(
        self, place: Place, ask: Ask, caller: Caller, slo: SloClass, draft: Draft, traceparent: str
    ) -> Live:
        """Accepted, and on its API key's account."""
        ask = replace(ask, targets=patient(caller.key, ask.targets, slo.ttft_s))
        cost = len(draft.prompt.tokens) + draft.sampling.max_tokens
        runs_s = max(0.0, _deadline_s(ask, caller, slo) - time.time())
        taken = await self._limiter.take(caller.key, place.request_id, cost, runs_s)
        try:
            live = await self._accept(place, ask, caller, slo, draft, traceparent, taken)
        except (HeadraceError, OSError):
            if taken is not None:
                self._limiter.settle(taken, 0)
            raise
        if taken is not None and live.taken is not taken:  # its twin was here before
            self._limiter.settle(taken, 0)
        return live

    def _settle(self, live: Live, _: float) -> None:
        if live.taken is not None and live.end is not None:
            usage = live.end.usage
            self._limiter.settle(live.taken, usage.prompt_tokens + usage.completion_tokens)

    async def _draft(self, family: Family, ask: Ask, prefix: str) -> Draft:
        if ask.sampling.grammar:
            await self._check_grammar(ask, prefix)
        inputs = await read_media(ask.media, self._fetcher, family)
        return await drafts.draft(family, ask, inputs, prefix)

    async def _check_grammar(self, ask: Ask, prefix: str) -> None:
        """Compiled here as it will be by the workers, in a thread. Whoever leaves meanwhile does not stop it."""
        compiled = self._terms.models.grammars(ask.model).begin(ask.sampling.grammar)
        try:
            await asyncio.shield(asyncio.wrap_future(compiled))
        except InvalidInput as error:
            where = await self._bad_tool(ask) if ask.tools else prefix + ask.grammar_field
            raise InvalidInput(error.message, field=where) from error

    async def _bad_tool(self, ask: Ask) -> str:
        """The first one whose arguments' schema alone is at fault already."""
        for index, tool in enumerate(ask.tools):
            alone = json_schema(json.loads(tool.parameters))
            try:
                await asyncio.wrap_future(self._terms.models.grammars(ask.model).begin(alone))
            except InvalidInput:
                return ask.tools_field.format(index)
        return ask.grammar_field

    def _patience_s(self, ask: Ask, caller: Caller, slo: SloClass) -> tuple[float, float]:
        """Until its deadline, and what it may wait for its first token; inf where it is let in all the same: of one
        that goes before its class the estimate for the class says nothing."""
        targets = patient(caller.key, ask.targets, slo.ttft_s)
        if not self._terms.early_rejection or targets.before(slo.ttft_s):
            return math.inf, math.inf
        wanted_s = effective_target_s(targets.ttft_s or slo.ttft_s, targets.priority)
        return _deadline_s(ask, caller, slo) - time.time(), max(wanted_s, slo.refuse_s)

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
        place: Place,
        ask: Ask,
        caller: Caller,
        slo: SloClass,
        draft: Draft,
        traceparent: str,
        taken: Taken | None,
    ) -> Live:
        # A second request with the same key may have come while this one was read.
        if (twin := self._streams.get(place.request_id)) is not None:
            return _same(twin, place.content_hash)
        accepted_s = time.time()
        deadline_s = _deadline_s(ask, caller, slo)
        if deadline_s <= accepted_s:
            raise DeadlineExceeded("the deadline passed before the request was accepted", field="timeout_s")
        request = Request(
            id=place.request_id,
            tenant=caller.tenant,
            model=draft.model,
            slo_class=slo.name,
            accepted_s=accepted_s,
            deadline_s=deadline_s,
            prompt=draft.prompt,
            media=draft.media,
            sampling=_seeded(ask, draft.sampling, place),
            gateway=self._gateway.name,
            body_hash=place.content_hash,
            idempotency_key=ask.idempotency_key,
            traceparent=traceparent,
            keep_on_disconnect=ask.keep_on_disconnect,
            question=drafts.question(ask),
            ttft_s=ask.targets.ttft_s,
            tbt_s=ask.targets.tbt_s,
            priority=ask.targets.priority,
            flow=flow_of(caller.tenant, ask.targets.flow),
            choices=place.choices,
        )
        live = self._streams.open(facts_of(request), time.monotonic())
        live.opened_s, live.received_s, live.taken = caller.arrived_s, caller.received_s, taken
        live.expected_s, live.patience_s, live.media = place.expected
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
        calls=calls_tools(request.sampling.grammar),
        choices=request.choices,
        ttft_s=request.ttft_s,
    )


def _identity(ask: Ask, tenant: str) -> tuple[str, bytes]:
    """Request id and content hash. Only a request with a key is ever compared with another."""
    if not ask.idempotency_key:
        return secrets.token_hex(16), b""
    name = f"{len(tenant)}:{tenant}:{ask.idempotency_key}".encode()
    return hashlib.sha256(name).hexdigest()[:32], body_hash(ask)


def choice_id(base: str, choice: int) -> str:
    """Of one question's answers all but the last two digits are the same; the first has the base itself."""
    return f"{base[:-2]}{(int(base[-2:], 16) + choice) % 256:02x}"


def _seeded(ask: Ask, sampling: Sampling, place: Place) -> Sampling:
    """Each answer draws in its own way, the first one as it would alone."""
    seed = sampling.seed if ask.seeded else int(place.request_id[:15], 16)
    seed = (seed + place.choice * SEED_STRIDE) % SEED_END if place.choice else seed
    return sampling if seed == sampling.seed else replace(sampling, seed=seed)


def _same(live: Live, content_hash: bytes) -> Live:
    if live.facts.body_hash != content_hash:
        raise Conflict("the idempotency key was used with another body", field="idempotency_key")
    return live
