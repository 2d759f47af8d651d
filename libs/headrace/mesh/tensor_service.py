"""TransferService: this process's tensors for other hosts, whole or as they are written."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import grpc
import grpc.aio

from headrace.core.types import TensorHandle
from headrace.mesh import tensor_files
from headrace.mesh.drafts import Draft
from headrace.mesh.errors import TransferError
from headrace.mesh.pulling import FETCH_WAIT_S, LOOK_S
from headrace.mesh.tensor_wire import CHUNK_BYTES, METHOD, Piece, to_wire
from headrace.v1 import transfer_pb2


class Holder(Protocol):
    """What a process holds that others may fetch."""

    @property
    def incarnation(self) -> str: ...
    def handles(self) -> dict[str, TensorHandle]: ...
    def draft(self, tensor_id: str) -> Draft | None: ...
    def kept(self, tensor_id: str) -> memoryview | None: ...


class TransferServicer:
    def __init__(self, holder: Holder) -> None:
        self._holder = holder

    def add_to(self, server: grpc.aio.Server) -> None:
        """In place of the generated registration: chunks are written by headrace.mesh.tensor_wire."""
        service, name = METHOD.strip("/").split("/")
        fetch = grpc.unary_stream_rpc_method_handler(
            self.fetch, request_deserializer=transfer_pb2.FetchRequest.FromString, response_serializer=to_wire
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: fetch}),))

    async def fetch(
        self, request: transfer_pb2.FetchRequest, context: "grpc.aio.ServicerContext[object, object]"
    ) -> AsyncIterator[Piece]:
        """Sending waits for the reader, chunk by chunk, so that no tensor keeps the event loop to itself."""
        if request.incarnation != self._holder.incarnation:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"{request.id} was another process's")
        draft = self._holder.draft(request.id) if request.follow else None
        try:
            if draft is not None:
                async for piece in _grow(draft):
                    yield piece
            else:
                for piece in _cut(self._whole(request.id)):
                    yield piece
        except KeyError:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"{request.id} is not held here")
        except (FileNotFoundError, TransferError) as error:
            await context.abort(grpc.StatusCode.DATA_LOSS, f"{request.id}: {error}")

    def _whole(self, tensor_id: str) -> memoryview:
        """Raises KeyError, FileNotFoundError, TransferError."""
        kept = self._holder.kept(tensor_id)
        if kept is not None:
            return kept
        handle = self._holder.handles()[tensor_id]
        return memoryview(tensor_files.map_for_reading(Path(handle.path), handle.size_bytes))  # not reused meanwhile


def _cut(data: memoryview, start: int = 0) -> list[Piece]:
    """From start to the data's end, nothing copied."""
    return [Piece(at, data[at : at + CHUNK_BYTES]) for at in range(start, len(data), CHUNK_BYTES)]


async def _grow(draft: Draft) -> AsyncIterator[Piece]:
    """Raises TransferError: dropped, or not written for FETCH_WAIT_S."""
    sent, now = 0, asyncio.get_running_loop().time
    heard_s = now()
    while sent < draft.size_bytes:
        if draft.dropped or now() - heard_s > FETCH_WAIT_S:
            raise TransferError("dropped before it was whole" if draft.dropped else "it grows no more")
        if draft.ready_bytes == sent:
            await asyncio.sleep(LOOK_S)
            continue
        for piece in _cut(draft.buffer[: draft.ready_bytes], sent):
            yield piece
            if draft.dropped:
                break
            sent, heard_s = piece.offset + len(piece.data), now()
