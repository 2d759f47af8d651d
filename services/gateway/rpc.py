"""GatewayService over gRPC: the same pipeline and streams as HTTP, errors as google.rpc details (mesh/rpc.py).

A response that ends without an answer carries its End (usage, timeline) and then fails with the matching status.
"""

import time
from dataclasses import replace
from typing import Any, NoReturn

import grpc

from headrace.core.errors import STATUS, HeadraceError, InvalidInput, Overloaded, RateLimited
from headrace.engines import grammar
from headrace.engines.families import ChatMessage, MediaPart, TextPart
from headrace.mesh.rpc import to_status
from headrace.v1 import common_pb2, gateway_pb2, gateway_pb2_grpc
from headrace.wire import convert
from services.gateway import targets
from services.gateway.ask import MESSAGES_MAX, PARTS_MAX, Ask, Caller, MediaSource
from services.gateway.auth import asking
from services.gateway.front import Front
from services.gateway.ids import checked_id
from services.gateway.live import Listener, Live
from services.gateway.media import source_of_url
from services.gateway.render import DROPPED_HEADERS, end_error

SAMPLING = "sampling."
Context = Any  # grpc.aio.ServicerContext, generic in types that the stubs do not have


def to_ask(request: gateway_pb2.GenerateRequest) -> Ask:
    """Raises InvalidInput, UnsupportedModality: naming the field."""
    media: list[MediaSource] = []
    if len(request.messages) > MESSAGES_MAX:
        raise InvalidInput(f"{len(request.messages)} messages; at most {MESSAGES_MAX}", field="messages")
    messages = tuple([_message(message, i, media) for i, message in enumerate(request.messages)])
    sampling = convert.sampling_from_proto(request.sampling)
    if sampling.grammar:
        sampling = replace(sampling, grammar=_canonical(sampling.grammar))
    return Ask(
        model=request.model,
        messages=messages,
        media=tuple(media),
        sampling=sampling,
        seeded=bool(sampling.seed) or sampling.temperature == 0.0,
        slo_class=request.slo_class,
        timeout_s=request.timeout_s,
        targets=targets.of_grpc(request),
        idempotency_key=request.idempotency_key,
        keep_on_disconnect=request.keep_on_disconnect,
    )


def _canonical(rules: bytes) -> bytes:
    try:
        return grammar.canonical(rules)
    except InvalidInput as error:
        raise InvalidInput(error.message, field=f"{SAMPLING}grammar") from error


def _message(message: gateway_pb2.Message, index: int, media: list[MediaSource]) -> ChatMessage:
    where = f"messages[{index}].content"
    texts = sum(part.WhichOneof("kind") == "text" for part in message.content)
    if texts > PARTS_MAX:
        raise InvalidInput(f"{texts} text parts; at most {PARTS_MAX}", field=where)
    parts = [_part(part, f"{where}[{i}]", media) for i, part in enumerate(message.content)]
    return ChatMessage(message.role, tuple(parts))


def _part(part: gateway_pb2.ContentPart, where: str, media: list[MediaSource]) -> TextPart | MediaPart:
    kind = part.WhichOneof("kind")
    if kind is None:
        raise InvalidInput("the part holds neither text nor media", field=where)
    if kind == "text":
        return TextPart(part.text)
    source = part.media
    field = f"{where}.media"
    if bool(source.data) == bool(source.url):
        raise InvalidInput("a media part holds either data or a url", field=field)
    if not source.modality:
        raise InvalidInput("the modality is missing", field=f"{field}.modality")
    if source.url:
        media.append(source_of_url(source.modality, source.url, f"{field}.url"))
    else:
        media.append(MediaSource(source.modality, f"{field}.data", data=source.data))
    return MediaPart(len(media) - 1)


async def abort(context: Context, error: HeadraceError) -> NoReturn:
    """google.rpc details for everybody; our own Failure for the SDK, which has no google.rpc stubs."""
    trailing: list[tuple[str, str | bytes]] = [
        ("grpc-status-details-bin", to_status(error).SerializeToString()),
        ("headrace-failure-bin", convert.failure_to_proto(error.failure()).SerializeToString()),
    ]
    if isinstance(error, Overloaded):
        trailing += [(name, error.dropped) for name in DROPPED_HEADERS]
    if isinstance(error, RateLimited):
        trailing += error.headers
    await context.abort(grpc.StatusCode[STATUS[error.code][0]], error.message, tuple(trailing))
    raise AssertionError("abort raises")


class GatewayServicer(gateway_pb2_grpc.GatewayServiceServicer):
    def __init__(self, front: Front) -> None:
        self._front = front

    def _caller(self, context: Context) -> Caller:
        metadata = dict(context.invocation_metadata() or ())
        key = asking(self._front.keys, str(metadata.get("authorization", "")))
        return Caller(
            tenant=key.tenant,
            received_s=time.time(),
            arrived_s=time.monotonic(),
            traceparent=str(metadata.get("traceparent", "")),
            trace=metadata.get("x-headrace-trace") == "1",
            key=key,
        )

    # Plain coroutines that write: a cancelled call raises right here, and no generator waits to be collected.

    async def Generate(self, request: gateway_pb2.GenerateRequest, context: Context) -> None:
        front = self._front
        try:
            caller = self._caller(context)
            ask = _within(to_ask(request), context.time_remaining())
            with front.tracer.request(caller, front.models.family(ask.model).spec.name) as trace:
                live = await front.admission.admit(ask, caller, trace.traceparent, SAMPLING)
                trace.follow(live)
                await self._respond(live, context, 0, trace.trace_id)
        except HeadraceError as error:
            front.gateway.metrics.refused[error.code] += 1
            await abort(context, error)

    async def Attach(self, request: gateway_pb2.AttachStreamRequest, context: Context) -> None:
        try:
            tenant = self._caller(context).tenant
            live = await self._front.find(checked_id(request.request_id), tenant)
            await self._respond(live, context, request.next_index, live.facts.traceparent[3:35])
        except HeadraceError as error:
            await abort(context, error)

    async def Cancel(
        self, request: gateway_pb2.CancelGenerateRequest, context: Context
    ) -> gateway_pb2.CancelGenerateResponse:
        try:
            tenant = self._caller(context).tenant
            known = await self._front.gateway.cancel_anywhere(checked_id(request.request_id), tenant)
            return gateway_pb2.CancelGenerateResponse(known=known)
        except HeadraceError as error:
            await abort(context, error)

    async def ListModels(
        self, request: gateway_pb2.ListModelsRequest, context: Context
    ) -> gateway_pb2.ListModelsResponse:
        try:
            self._caller(context)
        except HeadraceError as error:
            await abort(context, error)
        models = [
            gateway_pb2.ModelInfo(
                id=spec.name,
                context_tokens=spec.context_tokens,
                modalities=spec.modalities,
                servable=self._front.servable(spec.name),
            )
            for spec in (family.spec for family in self._front.models)
        ]
        return gateway_pb2.ListModelsResponse(models=models)

    async def _respond(self, live: Live, context: Context, next_index: int, trace_id: str) -> None:
        """Raises the typed error of an end that is not an answer, after its End event."""
        listener = self._front.gateway.listen(live)
        try:
            await context.write(self._started(live, trace_id))
            await self._write_deltas(listener, context, next_index)
        finally:
            remaining_s = context.time_remaining()
            self._front.gateway.leave(listener, deadline=remaining_s is not None and remaining_s <= 0.0)
        assert live.end is not None
        end = convert.end_to_proto(replace(live.end, timeline=tuple(self._front.timeline(live))))
        await context.write(gateway_pb2.GenerateEvent(end=end))
        if (error := end_error(live.end)) is not None:
            raise error

    async def _write_deltas(self, listener: Listener, context: Context, next_index: int) -> None:
        live = listener.live
        text = self._front.text_of(live)
        while live.end is None or listener.cursor < live.stream.next_index:
            await listener.news()
            first = listener.cursor
            tokens = listener.take()
            shown = [text.feed(token) for token in tokens]
            if live.end is not None:
                shown.append(text.finish())
            skip = max(0, next_index - first)
            rest = "".join(shown[skip:])
            if tokens[skip:] or rest:
                delta = gateway_pb2.Delta(index=first + skip, tokens=tokens[skip:], text=rest)
                if live.facts.logprobs:
                    delta.logprobs.extend(self._logprobs(live, range(first + skip, listener.cursor)))
                await context.write(gateway_pb2.GenerateEvent(delta=delta))

    def _logprobs(self, live: Live, indexes: range) -> list[common_pb2.TokenLogprobs]:
        """Of those tokens, as far as they are known: all of them, those behind a stop string too."""
        tokens, told, names = live.stream.tokens, live.stream.logprobs, self._front.models.names(live.facts.model)
        known = convert.logprobs_to_proto([(index, told[index]) for index in indexes if index in told])
        for one in known:
            one.text = bytes(names(tokens[one.row])[1] or ())
            one.top_text.extend([bytes(names(token)[1] or ()) for token in one.top])
        return known

    def _started(self, live: Live, trace_id: str) -> gateway_pb2.GenerateEvent:
        facts = live.facts
        return gateway_pb2.GenerateEvent(
            started=gateway_pb2.Started(
                request_id=facts.id,
                trace_id=trace_id,
                model=facts.model,
                prompt_tokens=facts.prompt_tokens,
                image_tokens=facts.image_tokens,
            )
        )


def _within(ask: Ask, remaining_s: float | None) -> Ask:
    """The context's deadline is one more limit."""
    if remaining_s is None or (ask.timeout_s and ask.timeout_s <= remaining_s):
        return ask
    # A client library without a deadline may announce years; the class's own time-out is the better answer.
    return replace(ask, timeout_s=max(remaining_s, 0.001)) if remaining_s < 86_400.0 else ask
