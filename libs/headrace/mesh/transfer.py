"""Tensors between workers: embeddings and KV caches, mapped on one host, streamed by gRPC between hosts.

A reader gets every byte that the handle promises, checked, or a TransferError: nothing partial ever.
"""

import asyncio
import mmap
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import xxhash

from headrace.core.types import TensorHandle
from headrace.mesh import tensor_files
from headrace.mesh.config import Settings
from headrace.mesh.errors import TransferError
from headrace.mesh.rpc import Channels
from headrace.v1 import transfer_pb2, transfer_pb2_grpc

CHUNK_BYTES = 1 << 20  # of the protocol; gRPC refuses messages over 4 MiB
MAX_TENSOR_BYTES = 8 << 30  # a handle that claims more is wrong: no memory is taken for it
FETCH_WAIT_S = 30.0  # without a chunk for so long the owner is as good as gone


@dataclass(slots=True)
class Fetched:
    """The tensor's bytes, read-only. Arrays made from the buffer keep it alive past close()."""

    buffer: memoryview
    _mapped: mmap.mmap | None = None

    def close(self) -> None:
        """Lets the owner reuse the file. Where arrays still show the bytes, the last of them does that."""
        mapped, self._mapped = self._mapped, None
        try:
            self.buffer.release()
            if mapped is not None:
                mapped.close()
        except BufferError:
            return


class Draft:
    """Room for a tensor: fill buffer, then seal. Nobody can see it before."""

    def __init__(self, store: "TensorStore", tensor_id: str, file: tensor_files.MappedFile, size_bytes: int) -> None:
        self.buffer = memoryview(file.map)[:size_bytes]
        self._store = store
        self._id = tensor_id
        self._file = file

    def seal(self, dtype: str, shape: tuple[int, ...], layout: str, length: int) -> TensorHandle:
        """Checksum and name: from now on it can be fetched. length: tokens covered (KV) or rows (embeddings)."""
        return self._store.publish(self._id, self._file, self.buffer, dtype, shape, layout, length)


class TensorStore:
    def __init__(
        self,
        directory: Path,
        owner: str,
        incarnation: str,
        host: str,
        grpc_address: str = "",
        *,
        limit_bytes: int = 4 << 30,
        force_grpc: bool = False,
    ) -> None:
        """grpc_address may be set later, when the server listens; handles made before carry none."""
        self.grpc_address = grpc_address
        self._files = tensor_files.FileStore(directory, owner, incarnation)
        self._owner, self._incarnation, self._host = owner, incarnation, host
        self._limit_bytes = limit_bytes
        self._force_grpc = force_grpc
        self._drafts: dict[str, tensor_files.MappedFile] = {}
        self._held: dict[str, tuple[TensorHandle, tensor_files.MappedFile]] = {}
        self._bytes = 0
        self._channels = Channels()

    @staticmethod
    def open(settings: Settings, owner: str, incarnation: str) -> "TensorStore":
        force = settings.transfer == "grpc"
        return TensorStore(
            settings.shm_dir,
            owner,
            incarnation,
            settings.host,
            limit_bytes=settings.shm_bytes,
            force_grpc=force,
        )

    # --- own tensors ---

    def create(self, tensor_id: str, size_bytes: int) -> Draft:
        """Raises TransferError when this process holds too much or the tmpfs is full."""
        assert size_bytes > 0
        assert tensor_id not in self._held, tensor_id
        self.drop(tensor_id)
        file = self._room(size_bytes)
        self._drafts[tensor_id] = file
        self._bytes += file.capacity
        return Draft(self, tensor_id, file, size_bytes)

    def _room(self, size_bytes: int) -> tensor_files.MappedFile:
        if self._bytes + size_bytes > self._limit_bytes:
            raise TransferError(f"{self._owner} holds {self._bytes} bytes of tensors: no room for {size_bytes}")
        return self._files.new(size_bytes)

    def publish(
        self,
        tensor_id: str,
        file: tensor_files.MappedFile,
        data: memoryview,
        dtype: str,
        shape: tuple[int, ...],
        layout: str,
        length: int,
    ) -> TensorHandle:
        assert self._drafts.get(tensor_id) is file, f"{tensor_id} was dropped or sealed before"
        checksum = xxhash.xxh3_64_intdigest(data)
        self._files.publish(file, tensor_id)
        del self._drafts[tensor_id]
        handle = TensorHandle(
            id=tensor_id,
            owner=self._owner,
            incarnation=self._incarnation,
            path=str(file.path),
            host=self._host,
            grpc_address=self.grpc_address,
            dtype=dtype,
            shape=shape,
            layout=layout,
            size_bytes=len(data),
            xxh3=checksum,
            length=length,
        )
        self._held[tensor_id] = (handle, file)
        return handle

    def drop(self, tensor_id: str) -> None:
        """Sealed or not; dropping what is not there is fine."""
        file = self._drafts.pop(tensor_id, None)
        if file is None and tensor_id in self._held:
            _, file = self._held.pop(tensor_id)
        if file is not None:
            self._bytes -= file.capacity
            self._files.discard(file)

    def handles(self) -> dict[str, TensorHandle]:
        return {tensor_id: handle for tensor_id, (handle, _) in self._held.items()}

    def files(self) -> list[Path]:
        return self._files.files()

    @property
    def held_bytes(self) -> int:
        return self._bytes

    def sweep(self) -> int:
        """Removes what dead processes left in the directory."""
        return tensor_files.sweep(self._files.directory)

    async def close(self) -> None:
        await self._channels.close()
        self._files.close()

    # --- other workers' tensors ---

    async def fetch(self, handle: TensorHandle) -> Fetched:
        """Raises TransferError: gone, out of reach, truncated or corrupt."""
        if not 0 < handle.size_bytes <= MAX_TENSOR_BYTES:
            raise TransferError(f"{handle.id}: {handle.size_bytes} bytes cannot be right")
        fetched = self._fetch_mapped(handle) or await self._fetch_remote(handle)
        if xxhash.xxh3_64_intdigest(fetched.buffer) != handle.xxh3:
            fetched.close()
            raise TransferError(f"{handle.id} of {handle.owner}: checksum differs")
        return fetched

    def _fetch_mapped(self, handle: TensorHandle) -> Fetched | None:
        """None: not on this host, or not there (a host name may be shared by mistake): ask the owner."""
        path = Path(handle.path)
        if self._force_grpc or handle.host != self._host or path.parent != self._files.directory:
            return None
        try:
            mapped = tensor_files.map_for_reading(path, handle.size_bytes)
        except FileNotFoundError:
            return None
        return Fetched(memoryview(mapped), mapped)

    async def _fetch_remote(self, handle: TensorHandle) -> Fetched:
        if not handle.grpc_address:
            raise TransferError(f"{handle.id} of {handle.owner} is gone")
        channel = self._channels.get(handle.grpc_address)
        stub = transfer_pb2_grpc.TransferServiceStub(channel)  # type: ignore[no-untyped-call]
        request = transfer_pb2.FetchRequest(id=handle.id, incarnation=handle.incarnation)
        data = bytearray(handle.size_bytes)
        arrived = 0
        try:
            async with asyncio.timeout(FETCH_WAIT_S) as patience:
                async for chunk in stub.Fetch(request):
                    arrived = _put_chunk(handle, data, arrived, chunk)
                    patience.reschedule(asyncio.get_running_loop().time() + FETCH_WAIT_S)
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            raise TransferError(f"{handle.id} of {handle.owner} at {handle.grpc_address}: {_why(error)}") from error
        if arrived != handle.size_bytes:
            raise TransferError(f"{handle.id}: {arrived} of {handle.size_bytes} bytes came")
        return Fetched(memoryview(data).toreadonly())

    def servicer(self) -> "TransferServicer":
        return TransferServicer(self)


def _put_chunk(handle: TensorHandle, data: bytearray, arrived: int, chunk: transfer_pb2.Chunk) -> int:
    end = arrived + len(chunk.data)
    if chunk.offset != arrived or end > handle.size_bytes:
        raise TransferError(f"{handle.id}: chunk at {chunk.offset} does not fit")
    data[arrived:end] = chunk.data
    return end


def _why(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name} {error.details()}"
    return f"silent for {FETCH_WAIT_S:g} s"


class TransferServicer(transfer_pb2_grpc.TransferServiceServicer):
    def __init__(self, store: TensorStore) -> None:
        self._store = store

    async def Fetch(
        self, request: transfer_pb2.FetchRequest, context: "grpc.aio.ServicerContext[object, object]"
    ) -> AsyncIterator[transfer_pb2.Chunk]:
        handle = self._store.handles().get(request.id)
        if handle is None or handle.incarnation != request.incarnation:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"{request.id} is not held here")
            return
        try:
            mapped = tensor_files.map_for_reading(Path(handle.path), handle.size_bytes)  # safe from reuse meanwhile
        except (FileNotFoundError, TransferError) as error:
            await context.abort(grpc.StatusCode.DATA_LOSS, f"{request.id}: {error}")
            return
        for offset in range(0, handle.size_bytes, CHUNK_BYTES):
            end = min(offset + CHUNK_BYTES, handle.size_bytes)
            yield transfer_pb2.Chunk(offset=offset, data=mapped[offset:end])
