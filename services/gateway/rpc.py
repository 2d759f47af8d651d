"""GatewayService over gRPC: the same pipeline and streams as HTTP, errors as google.rpc details (mesh/rpc.py).

A response that ends without an answer carries its End (usage, timeline) and then fails with the matching status.
"""

import contextlib
import math
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any, NoReturn

import grpc

from headrace.client.protocol import RETRY_COUNT
from headrace.core.errors import STATUS, HeadraceError, Overloaded, RateLimited
from headrace.mesh.rpc import to_status
from headrace.v1 import gateway_pb2, gateway_pb2_grpc
from headrace.wire import convert
from services.gateway import rpc_ask
from services.gateway.admission import choice_id
from services.gateway.ask import Caller
from services.gateway.asking import check_count
from services.gateway.auth import asking
from services.gateway.front import Front
from services.gateway.ids import checked_id
from services.gateway.render import DROPPED_HEADERS
from services.gateway.rpc_ask import SAMPLING
from services.gateway.rpc_choice import Choice, Wanted
from services.gateway.several import news_of

PUSHBACK = "grpc-retry-pushback-ms"
AGAIN = ("grpc-previous-rpc-attempts", RETRY_COUNT)  # gRPC's own retries, the SDK's
Context = Any  # grpc.aio.ServicerContext, generic in types that the stubs do not have


async def abort(context: Context, error: HeadraceError) -> NoReturn:
    """google.rpc details for everybody; our own Failure for the SDK, which has no google.rpc stubs."""
    trailing: list[tuple[str, str | bytes]] = [
        ("grpc-status-details-bin", to_status(error).SerializeToString()),
        ("headrace-failure-bin", convert.failure_to_proto(error.failure()).SerializeToString()),
    ]
    if isinstance(error, Overloaded):
        trailing += [(name, error.dropped) for name in DROPPED_HEADERS]
        # What gRPC's own retries go by: https://github.com/grpc/proposal/blob/master/A6-client-retries.md
        trailing.append((PUSHBACK, str(math.ceil(error.retry_after_s * 1e3)) if error.come_back else "-1"))
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
            again=any(metadata.get(name, "0") != "0" for name in AGAIN),
        )

    # Plain coroutines that write: a cancelled call raises right here, and no generator waits to be collected.

    async def Generate(self, request: gateway_pb2.GenerateRequest, context: Context) -> None:
        front = self._front
        try:
            caller = self._caller(context)
            asks = rpc_ask.within(rpc_ask.to_asks(request), context.time_remaining())
            with front.tracer.request(caller, front.models.family(request.model).spec.name) as trace:
                lives = await front.admission.admit_all(asks, caller, trace.traceparent, SAMPLING)
                trace.follow(lives[0])
                wanted = [Wanted(live) for live in lives]
                await self._respond(wanted, bool(request.tools), context, trace.trace_id)
        except HeadraceError as error:
            front.gateway.metrics.refused[error.code] += 1
            await abort(context, error)

    async def Attach(self, request: gateway_pb2.AttachStreamRequest, context: Context) -> None:
        try:
            tenant, first = self._caller(context).tenant, checked_id(request.request_id)
            indexes = (request.next_index, *request.other_next_index)
            check_count("other_next_index", len(indexes))
            wanted = [
                Wanted(await self._front.find(choice_id(first, choice), tenant), index)
                for choice, index in enumerate(indexes)
            ]
            await self._respond(wanted, request.tool_calls, context, wanted[0].live.facts.traceparent[3:35])
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

    async def _respond(self, wanted: Sequence[Wanted], calls: bool, context: Context, trace_id: str) -> None:
        """calls: they are told as such. Raises the first typed error of an end that is no answer, after all ends."""
        front, choices = self._front, list[Choice]()
        try:
            for one in wanted:
                choices.append(Choice(front, one, len(choices), calls))
            for choice in choices:
                await context.write(choice.started(trace_id))
            async with contextlib.aclosing(_news(choices)) as news:
                async for choice in news:
                    for event in choice.said():
                        await context.write(event)
        finally:
            remaining_s = context.time_remaining()
            for choice in choices:
                front.gateway.leave(choice.listener, deadline=remaining_s is not None and remaining_s <= 0.0)
        for choice in choices:
            if choice.error is not None:
                raise choice.error


async def _news(choices: Sequence[Choice]) -> AsyncGenerator[Choice, None]:
    """Each whenever it has news, until all are over. Raises HeadraceError: one's stream is no more."""
    if len(choices) == 1:  # nearly every request, and no task for each piece of news
        (choice,) = choices
        while not choice.over:
            await choice.listener.news()
            yield choice
        return
    async with contextlib.aclosing(news_of(choices)) as news:
        async for choice in news:
            if choice.failed is not None:
                raise choice.failed
            yield choice
