"""The asynchronous client: a thin shell around client.protocol."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from types import TracebackType
from typing import Any

import grpc
import grpc.aio

from headrace.client import errors
from headrace.client.door import Door
from headrace.client.protocol import CHANNEL_OPTIONS, RETRIES, Access, Answer, Told, models_of
from headrace.client.request import Conversation, MediaLike, Options, build, media_of
from headrace.client.types import Delta, Model
from headrace.v1 import gateway_pb2, gateway_pb2_grpc


class AsyncStream(Told):
    """One answer. Iterate it for deltas, or await text(). Closing it early cancels the request.

    >>> async for delta in client.generate("Count to ten."):  # doctest: +SKIP
    ...     print(delta.text, end="", flush=True)
    """

    def __init__(self, client: "AsyncClient", answer: Answer) -> None:
        self._client = client
        super().__init__(answer)
        self._call = client._begin(answer)
        self._deltas = self._read()

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self._deltas

    async def __aenter__(self) -> "AsyncStream":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop reading; a request that still runs is cancelled by its gateway (unless keep_on_disconnect)."""
        self._call.cancel()
        await self._deltas.aclose()

    async def cancel(self) -> None:
        """Stop the request itself; iteration then ends, and end.reason is "cancelled"."""
        self._answer.cancelled = True
        if self._answer.request_id:
            await self._client.cancel(self._answer.request_id)
        else:
            self._call.cancel()

    async def text(self) -> str:
        """The rest of the first answer, waited for. Raises what iterating raises."""
        return (await self.texts())[0]

    async def texts(self) -> list[str]:
        """The rest of each answer, waited for."""
        texts = [""] * len(self._answer.choices)
        async for delta in self:
            texts[delta.choice] += delta.text
        return texts

    async def _read(self) -> AsyncGenerator[Delta, None]:
        answer = self._answer
        while not answer.ended:
            try:
                async for event in self._call:
                    if (delta := answer.take(event)) is not None:
                        yield delta
            except grpc.RpcError as error:
                if answer.over:
                    break
                await asyncio.sleep(answer.broken(error))
                self._call = self._client._begin(answer, elsewhere=True)
        if answer.error is not None:
            raise answer.error


class AsyncClient:
    """Talks to one of several gateways of a cell; an answer that breaks goes on at the next.

    >>> async with AsyncClient("127.0.0.1:8001") as client:  # doctest: +SKIP
    ...     print(await client.generate("Which digit is this?", images=["seven.png"]).text())
    """

    def __init__(
        self,
        addresses: str | Sequence[str],
        *,
        api_key: str = "",
        trace: bool = False,
        traceparent: str = "",
        tls: Door | None = None,
        max_retries: int = RETRIES,
    ) -> None:
        """addresses: host:port, one or several. tls: Door(ca=...), and cert and key where the gateway asks for them.
        Without an api_key it is the door's. max_retries: how often one answer is asked for again when the mesh is full,
        after as long as it says."""
        self._door = tls or Door()
        self._access = Access.of(addresses, api_key or self._door.api_key, trace, traceparent, max_retries)
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._at = 0

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close(None)
        self._channels.clear()

    def generate(
        self,
        conversation: Conversation,
        *,
        images: Sequence[MediaLike] = (),
        audio: Sequence[MediaLike] = (),
        videos: Sequence[MediaLike] = (),
        **options: Any,
    ) -> AsyncStream:
        """Asks for an answer. options: the fields of client.Options (model, max_tokens, temperature, slo_class,
        ttft_target_s, tbt_target_s, priority, flow, timeout_s, idempotency_key, tools, n, ...). images, audio and
        videos stand before the text of the last message.

        >>> await client.generate("Hello", max_tokens=20, slo_class="batch-1").text()  # doctest: +SKIP
        """
        request = build(conversation, media_of(images, audio, videos), Options(**options))
        return AsyncStream(self, Answer(request, max_retries=self._access.max_retries))

    def attach(self, request_id: str, next_index: int = 0) -> AsyncStream:
        """Reads a request that runs or has ended within the last minutes, from a token on, at any gateway."""
        return AsyncStream(self, Answer(None, request_id, next_index))

    async def cancel(self, request_id: str) -> bool:
        """False: no such request."""
        request = gateway_pb2.CancelGenerateRequest(request_id=request_id)
        return bool((await self._unary("Cancel", request)).known)

    async def models(self) -> list[Model]:
        return models_of(await self._unary("ListModels", gateway_pb2.ListModelsRequest()))

    async def _unary(self, method: str, request: Any) -> Any:
        """Cancel and ListModels may be made twice: an unreachable gateway passes the call on to the next."""
        failed: grpc.RpcError | None = None
        for attempt in range(len(self._access.addresses)):
            try:
                return await getattr(self._stub(elsewhere=attempt > 0), method)(request, metadata=self._access.metadata)
            except grpc.RpcError as error:
                failed = error
                if not isinstance(errors.of_rpc(error), errors.Unavailable):
                    break
        assert failed is not None
        raise errors.of_rpc(failed) from failed

    def _begin(self, answer: Answer, elsewhere: bool = False) -> Any:
        return answer.call(self._stub(elsewhere), self._access.metadata)

    def _stub(self, elsewhere: bool = False) -> Any:
        addresses = self._access.addresses
        if elsewhere:
            self._at = (self._at + 1) % len(addresses)
        address = addresses[self._at]
        if address not in self._channels:
            self._channels[address] = self._door.aio_channel(address, CHANNEL_OPTIONS)
        return gateway_pb2_grpc.GatewayServiceStub(self._channels[address])  # type: ignore[no-untyped-call]
